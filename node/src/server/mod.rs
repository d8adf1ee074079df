//! What listens: clients, the operator, health and metrics. Handlers parse, call the service, answer.
