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

{{- /* The pod of `helm test`. Not the selector's labels: the Service must not send requests to it. */ -}}
{{- define "dynalign.testName" -}}
{{ include "dynalign.fullname" . | trunc 52 | trimSuffix "-" }}-test-ready
{{- end }}

{{- define "dynalign.testSelectorLabels" -}}
app.kubernetes.io/name: {{ include "dynalign.name" . }}-test
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
{{- if .Values.trainer.networkPolicy.enabled }}
{{- $rules = concat $rules $rbac.networkPolicies }}
{{- end }}
{{- if and .Values.notifications.enabled .Values.notifications.secrets }}
{{- range $rbac.notifications }}
{{- $rules = append $rules (set (deepCopy .) "resourceNames" $.Values.notifications.secrets) }}
{{- end }}
{{- end }}
{{- if not .Values.namespaces }}
{{- $rules = concat $rules $rbac.clusterWide }}
{{- end }}
{{- toYaml $rules }}
{{- end }}

{{/* What the operator reads of `trainer`, as JSON: manifests/build_settings.py has the other side. */}}
{{- define "dynalign.trainerPods" -}}
{{- $proxy := dict "http" (.Values.trainer.proxy.http | default nil) "https" (.Values.trainer.proxy.https | default nil) "noProxy" .Values.trainer.proxy.noProxy }}
{{- $policy := dict "enabled" .Values.trainer.networkPolicy.enabled "extraEgress" .Values.trainer.networkPolicy.extraEgress "dnsPorts" .Values.networkPolicy.dnsPorts }}
{{- /* The API server, which asks with ApiProxy, and a Prometheus that nobody has named, cannot be told from others. */}}
{{- if and (ne (toString .Values.progress) "ApiProxy") (or .Values.trainer.networkPolicy.metricsFrom (not .Values.metrics.podMonitor.enabled)) }}
{{- $_ := set $policy "operator" (dict "namespace" .Release.Namespace "labels" (include "dynalign.selectorLabels" . | fromYaml)) }}
{{- $_ := set $policy "metricsFrom" .Values.trainer.networkPolicy.metricsFrom }}
{{- end }}
{{- $pods := dict "env" .Values.trainer.env "podDefaults" .Values.trainer.podDefaults "podSecurity" .Values.trainer.podSecurity "proxy" $proxy "hubEndpoint" (.Values.trainer.hubEndpoint | default nil) "allowedImages" .Values.trainer.allowedImages "allowedServiceAccounts" .Values.trainer.allowedServiceAccounts "scratch" .Values.trainer.scratch "shareCompiled" .Values.trainer.shareCompiled "networkPolicy" $policy }}
{{- if .Values.trainer.caBundle.configMap }}
{{- $_ := set $pods "caBundle" (dict "configMap" .Values.trainer.caBundle.configMap "key" .Values.trainer.caBundle.key) }}
{{- end }}
{{- toJson $pods }}
{{- end }}

{{/* What restricted Pod Security asks of a pod and of a container, with the identity that `podSecurity` gives. */}}
{{- define "dynalign.podSecurityContext" -}}
runAsNonRoot: true
{{- with .Values.podSecurity }}
{{- toYaml . | nindent 0 }}
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "dynalign.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
