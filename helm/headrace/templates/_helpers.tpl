{{- define "headrace.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Name of the resources: 63 characters, since it becomes a DNS label. */}}
{{- define "headrace.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "headrace.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "headrace.labels" -}}
helm.sh/chart: {{ include "headrace.chart" . }}
{{ include "headrace.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Never to be changed: Kubernetes refuses another selector for a Deployment that exists. */}}
{{- define "headrace.selectorLabels" -}}
app.kubernetes.io/name: {{ include "headrace.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "headrace.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "headrace.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "headrace.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) }}
{{- end }}
{{- end }}
{{- end }}

{{/* routes.yaml. What the pod would refuse at its start is refused here. */}}
{{- define "headrace.routes" -}}
{{- if not (dig "auth" "keys" list .Values.routes) }}
{{- fail "routes.auth.keys must name a key: without one Headrace does not listen on an address that others reach" }}
{{- end }}
{{- toYaml .Values.routes }}
{{- end }}

{{/* Seconds that a pod has to stop: load balancers, answers, record, and some to spare. */}}
{{- define "headrace.terminationGracePeriodSeconds" -}}
{{- $grace := dig "limits" "grace_s" 10 .Values.routes | float64 | ceil | int }}
{{- add .Values.preStopSleepSeconds (mul 2 $grace) 5 }}
{{- end }}

{{/* Whether a second pod could not have the volume: then the old one goes before the new one comes. */}}
{{- define "headrace.isAlone" -}}
{{- if and .Values.persistence.enabled (not (has "ReadWriteMany" .Values.persistence.accessModes)) }}
{{- if gt (int .Values.replicaCount) 1 }}
{{- fail "replicaCount above 1 with persistence.enabled needs persistence.accessModes: [ReadWriteMany]" }}
{{- end }}
{{- true }}
{{- end }}
{{- end }}
