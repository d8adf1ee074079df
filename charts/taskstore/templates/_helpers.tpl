{{/* Name of the release's objects: the release, with the chart's name when the release does not say it. */}}
{{- define "taskstore.name" -}}
{{- if contains "taskstore" .Release.Name -}}
{{- printf "%s-operator" (.Release.Name | trunc 44 | trimSuffix "-") -}}
{{- else -}}
{{- printf "%s-taskstore-operator" (.Release.Name | trunc 34 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{/* Labels by which our objects find the operator's pods. They never change within a release. */}}
{{- define "taskstore.selectorLabels" -}}
app.kubernetes.io/name: taskstore-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels of every object. */}}
{{- define "taskstore.labels" -}}
{{ include "taskstore.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: taskstore
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "taskstore.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "taskstore.name" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* An image reference: a digest wins over a tag, an empty tag is the chart's appVersion. */}}
{{- define "taskstore.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (default .appVersion .image.tag) -}}
{{- end -}}
{{- end -}}

{{/*
What the operator may do where it watches. Least rights, grouped by what needs them. Secrets are never
listed or watched: RBAC knows no labels, so that would open every Secret of the namespace.
*/}}
{{- define "taskstore.rules" -}}
# What users ask for, and what is reported. Status only: the spec is the user's.
- apiGroups: [taskstore.dev]
  resources: [taskstoreclusters, taskstorebackups, taskstorerestores]
  verbs: [get, list, watch]
- apiGroups: [taskstore.dev]
  resources: [taskstoreclusters/status, taskstorebackups/status, taskstorerestores/status]
  verbs: [update]
# The cluster that a restore asks for, and the backups that a schedule asks for and no longer keeps.
- apiGroups: [taskstore.dev]
  resources: [taskstoreclusters]
  verbs: [create]
- apiGroups: [taskstore.dev]
  resources: [taskstorebackups]
  verbs: [create, delete]
# Members: a pod and a volume each.
- apiGroups: [""]
  resources: [pods, persistentvolumeclaims]
  verbs: [get, list, watch, create, patch, delete]
# Their Services, and the account their pods run under; garbage collection takes them away.
- apiGroups: [""]
  resources: [services, serviceaccounts]
  verbs: [get, list, watch, create, patch]
# The disruption budget of each cluster.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, update, delete]
# Certificates and keys: by name, never listed or watched.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, update, delete]
# The CA that clients trust: by name as well.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, update]
# What happened, for kubectl describe.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
