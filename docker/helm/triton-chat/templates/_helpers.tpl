{{- define "triton-chat.labels" -}}
app.kubernetes.io/name: triton-chat
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "triton-chat.name" -}}
{{- if contains "triton-chat" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-triton-chat" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "triton-chat.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Values.engine }}
{{- end }}

{{- define "triton-chat.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "triton-chat.name" .) }}{{ else }}{{ .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{- /* The last part of the checkpoint's name. */ -}}
{{- define "triton-chat.model" -}}
{{ .Values.model.name | default (base (.Values.model.hub | default .Values.model.path)) }}
{{- end }}

{{- /* The launcher's command line after `triton-chat serve`, one item each. */ -}}
{{- define "triton-chat.args" -}}
{{- if .Values.model.hub }}
{{- if or (eq .Values.engine "trtllm") (gt (int .Values.multiNode.size) 1) }}
{{- fail "model.hub is for engine vllm on one machine; else give model.claim and model.path" }}
{{- end }}
- {{ .Values.model.hub }}
{{- else }}
- /models/{{ .Values.model.path }}
{{- end }}
{{- if eq .Values.engine "trtllm" }}
- --engine=trtllm
- --engine-dir=/models/{{ required "engine trtllm needs model.enginePath" .Values.model.enginePath }}
{{- end }}
- --served-model-name={{ include "triton-chat.model" . }}
- --host=0.0.0.0
- --triton-host=0.0.0.0
- --grace-period={{ .Values.gracePeriod }}
- --ready-timeout={{ .Values.startTimeout }}
- --log-format=json
- --verbose
{{- if not .Values.apiKeys.none }}
- --api-keys-file=/run/secrets/triton-chat/keys
{{- end }}
{{- if gt (int .Values.multiNode.size) 1 }}
- {{ ternary "--distributed-executor-backend=ray" (printf "--num-nodes=%v" .Values.multiNode.size) (eq .Values.engine "vllm") }}
{{- end }}
{{- with .Values.monitoring.metricsPort }}
- --metrics-port={{ . }}
{{- end }}
{{- range .Values.args }}
- {{ . | quote }}
{{- end }}
{{- end }}

{{- define "triton-chat.securityContext" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "triton-chat.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "triton-chat.resources" -}}
{{- $gpus := dict "nvidia.com/gpu" (toString .Values.gpus) -}}
requests:
  {{- merge (deepCopy $gpus) (.Values.resources.requests | default dict) | toYaml | nindent 2 }}
limits:
  {{- merge (deepCopy $gpus) (.Values.resources.limits | default dict) | toYaml | nindent 2 }}
{{- end }}

{{- define "triton-chat.mounts" -}}
{{- if not .Values.model.hub }}
- {name: models, mountPath: /models, readOnly: true}
{{- end }}
- {name: cache, mountPath: /cache}
- {name: tmp, mountPath: /tmp}
- {name: shm, mountPath: /dev/shm}
{{- if not .Values.apiKeys.none }}
- {name: keys, mountPath: /run/secrets/triton-chat, readOnly: true}
{{- end }}
{{- if and (gt (int .Values.multiNode.size) 1) (eq .Values.engine "trtllm") }}
- {name: ssh, mountPath: /run/ssh, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "triton-chat.volumes" -}}
{{- if not .Values.model.hub }}
- name: models
  persistentVolumeClaim: {claimName: {{ .Values.model.claim }}, readOnly: true}
{{- end }}
- name: cache
{{- with .Values.multiNode.cacheClaim | default .Values.cacheClaim }}
  persistentVolumeClaim: {claimName: {{ . }}}
{{- else }}
  emptyDir: {sizeLimit: {{ .Values.cacheSize }}}
{{- end }}
- name: tmp
  emptyDir: {}
- name: shm
  emptyDir: {medium: Memory, sizeLimit: {{ .Values.sharedMemory }}}
{{- if not .Values.apiKeys.none }}
- name: keys
  secret: {secretName: {{ .Values.apiKeys.secret }}}
{{- end }}
{{- if and (gt (int .Values.multiNode.size) 1) (eq .Values.engine "trtllm") }}
- name: ssh
  # sshd and ssh refuse a private key that others may read; the group is the pod's own.
  secret: {secretName: {{ .Values.multiNode.sshSecret }}, defaultMode: 0440}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* What all pods have in common; the containers are the caller's. */ -}}
{{- define "triton-chat.pod" -}}
automountServiceAccountToken: false
{{- with include "triton-chat.serviceAccount" . }}
serviceAccountName: {{ . }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext: {{ include "triton-chat.securityContext" . | nindent 2 }}
# The endpoints' delay, the frontends' drain, and the launcher's limits for stopping frontends (8 s) and tritonserver (30 s),
# with 5 s more. docs/upgrades.md, "Upgrades without lost requests".
terminationGracePeriodSeconds: {{ add .Values.endpointDelay .Values.gracePeriod 8 30 5 }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.topologySpread }}
topologySpreadConstraints:
  {{- range . }}
  - {{ merge (deepCopy .) (dict "labelSelector" (dict "matchLabels" (include "triton-chat.labels" $ | fromYaml))) | toYaml | nindent 4 | trim }}
  {{- end }}
{{- end }}
volumes: {{ include "triton-chat.volumes" . | nindent 2 }}
{{- end }}

{{- /* The variables that all containers of the engine have. */ -}}
{{- define "triton-chat.env" -}}
{{- with .Values.model.hubSecret }}
- name: HF_TOKEN
  valueFrom: {secretKeyRef: {name: {{ . }}, key: token}}
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* The metadata of a pod; `component` is a group's part, or empty. */ -}}
{{- define "triton-chat.podMetadata" -}}
{{- $ := .root -}}
labels:
  {{- include "triton-chat.labels" $ | nindent 2 }}
  {{- with .component }}
  app.kubernetes.io/component: {{ . }}
  {{- end }}
  {{- with $.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $.Values.podAnnotations }}
annotations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* A container with the launcher. `command` is the caller's if it is not the image's. */ -}}
{{- define "triton-chat.container" -}}
image: {{ include "triton-chat.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
ports:
  - {name: http, containerPort: 9997}
  - {name: metrics, containerPort: 8002}
  {{- with .Values.monitoring.metricsPort }}
  - {name: front-metrics, containerPort: {{ . }}}
  {{- end }}
securityContext: {{ include "triton-chat.containerSecurityContext" . | nindent 2 }}
resources: {{ include "triton-chat.resources" . | nindent 2 }}
volumeMounts: {{ include "triton-chat.mounts" . | nindent 2 }}
startupProbe:
  httpGet: {path: /health/ready, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: {{ div (add .Values.startTimeout 9) 10 }}
readinessProbe:
  httpGet: {path: /health/ready, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
# Checks only that the frontends answer: the launcher itself restarts a dead engine, and exits if that does not help.
livenessProbe:
  httpGet: {path: /health/live, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
lifecycle:
  preStop: {sleep: {seconds: {{ .Values.endpointDelay }}}}
{{- end }}
