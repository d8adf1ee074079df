//! The operator: observe, plan, apply, report.
