{{- define "dynalign.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "dynalign.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "dynalign.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "dynalign.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Name of what is outside the release's namespace: releases of one name in two namespaces must not share it. */}}
{{- define "dynalign.roleName" -}}
{{- printf "%s-%s" .Release.Namespace (include "dynalign.fullname" .) }}
{{- end }}

{{- define "dynalign.selectorLabels" -}}
app.kubernetes.io/name: {{ include "dynalign.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "dynalign.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "dynalign.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "dynalign.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "dynalign.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* An image reference from (dict "image" VALUES "chart" .Chart). */}}
{{- define "dynalign.image" -}}
{{- if .image.digest }}
{{- printf "%s@%s" .image.repository .image.digest }}
{{- else }}
{{- printf "%s:%s" .image.repository (default .chart.AppVersion .image.tag) }}
{{- end }}
{{- end }}

{{- define "dynalign.trainerPullSecrets" -}}
{{- $names := list }}
{{- range .Values.trainer.imagePullSecrets }}
{{- $names = append $names .name }}
{{- end }}
{{- join "," $names }}
{{- end }}

{{/* The rules of files/rbac.yaml that these values need. */}}
{{- define "dynalign.rules" -}}
{{- $rbac := .Files.Get "files/rbac.yaml" | fromYaml }}
{{- $rules := $rbac.namespaced }}
{{- if eq (toString .Values.progress) "ApiProxy" }}
{{- $rules = concat $rules $rbac.apiProxy }}
{{- end }}
{{- if not .Values.namespaces }}
{{- $rules = concat $rules $rbac.clusterWide }}
{{- end }}
{{- toYaml $rules }}
{{- end }}

{{/* What restricted Pod Security asks of a pod and of a container. Stages' pods run as the same user. */}}
{{- define "dynalign.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "dynalign.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
