{{/* The pod, the same in a Deployment and in a StatefulSet. */}}

{{- define "jobgate.pod" -}}
{{- $fullname := include "jobgate.fullname" . -}}
{{- $secrets := include "jobgate.secretsPath" . -}}
metadata:
  labels:
    {{- /* Not the chart's version: a new chart that changes nothing here replaces no pod. */}}
    {{- omit (include "jobgate.labels" (dict "root" . "extra" .Values.podLabels) | fromYaml) "helm.sh/chart" | toYaml | nindent 4 }}
  annotations:
    {{- if .Values.demo.enabled }}
    {{- include "jobgate.checks" . }}
    {{- else }}
    checksum/config: {{ include "jobgate.restartConfig" . | sha256sum }}
    {{- end }}
    {{- /* The URL of Redis is read at the start alone. What is in a Secret of somebody else's nobody here sees change. */}}
    {{- with include "jobgate.redisUrl" . }}
    checksum/store: {{ sha256sum . }}
    {{- end }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "jobgate.serviceAccount" . | quote }}
  automountServiceAccountToken: false
  # Its variables (JOBGATE_PORT and the like) are nobody's business here.
  enableServiceLinks: false
  {{- with include "jobgate.pullSecrets" . }}
  imagePullSecrets:
    {{- . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  # More than jobgate takes to drain: tied to config.server.drain_timeout and checked.
  terminationGracePeriodSeconds: {{ include "jobgate.graceSeconds" . }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  {{- if .Values.topologySpread.enabled }}
  topologySpreadConstraints:
    {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - topologyKey: {{ . }}
      maxSkew: 1
      whenUnsatisfiable: {{ $.Values.topologySpread.whenUnsatisfiable }}
      labelSelector:
        matchLabels:
          {{- include "jobgate.selector" $ | nindent 10 }}
      {{- if ne (include "jobgate.storeKind" $) "embedded" }}
      matchLabelKeys: [pod-template-hash]
      {{- end }}
    {{- end }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.hostAliases }}
  hostAliases:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.dnsConfig }}
  dnsConfig:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.initContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: jobgate
      image: {{ include "jobgate.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      {{- if .Values.demo.enabled }}
      # Only `kubectl port-forward` reaches the public listener: it has no clients, so it is on loopback.
      args: [demo, --listen, "127.0.0.1:8080", --admin-listen, {{ printf "%s:9090" .Values.listenAddress | quote }}]
      {{- else }}
      args: [serve, --config, /etc/jobgate/jobgate.yaml]
      {{- end }}
      {{- with concat (include "jobgate.demoEnv" . | fromJsonArray) (.Values.extraEnv | default list) }}
      env:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.envFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - name: http
          containerPort: 8080
          protocol: TCP
        - name: admin
          containerPort: 9090
          protocol: TCP
      startupProbe:
        httpGet: { path: /livez, port: admin }
        periodSeconds: 2
        failureThreshold: {{ div (add .Values.probes.startupSeconds 1) 2 }}
      readinessProbe:
        httpGet: { path: /readyz, port: admin }
        periodSeconds: {{ .Values.probes.readinessPeriodSeconds }}
        failureThreshold: 2
        timeoutSeconds: 3
      livenessProbe:
        httpGet: { path: /livez, port: admin }
        periodSeconds: {{ .Values.probes.livenessPeriodSeconds }}
        failureThreshold: 3
        timeoutSeconds: 5
      {{- if .Values.preStopSleep }}
      lifecycle:
        preStop:
          sleep:
            seconds: {{ .Values.preStopSleep }}
      {{- end }}
      {{- with .Values.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      # Not a value: there is nothing in the image that needs less.
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
      {{- if not .Values.demo.enabled }}
      volumeMounts:
        # Folders, never single files: a single file would not follow a change.
        - name: config
          mountPath: /etc/jobgate
          readOnly: true
        {{- if .Values.sourceCredentials }}
        - name: sources
          mountPath: {{ $secrets }}/sources
          readOnly: true
        {{- end }}
        {{- if include "jobgate.egressSecrets" . }}
        - name: egress
          mountPath: {{ $secrets }}/egress
          readOnly: true
        {{- end }}
        {{- if eq .Values.store.kind "redis" }}
        - name: store
          mountPath: {{ $secrets }}/store
          readOnly: true
        {{- end }}
        {{- if .Values.tls.existingSecret }}
        - name: tls
          mountPath: {{ $secrets }}/tls
          readOnly: true
        {{- end }}
        {{- if eq (include "jobgate.storeKind" .) "embedded" }}
        - name: data
          mountPath: /var/lib/jobgate
        {{- end }}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- else if .Values.extraVolumeMounts }}
      volumeMounts:
        {{- toYaml .Values.extraVolumeMounts | nindent 8 }}
      {{- end }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if not .Values.demo.enabled }}
  volumes:
    - name: config
      configMap:
        name: {{ $fullname | quote }}
    {{- if .Values.sourceCredentials }}
    - name: sources
      projected:
        defaultMode: 0440
        sources:
          {{- range $name, $from := .Values.sourceCredentials }}
          {{- $secret := include "jobgate.credentialSecret" (dict "root" $ "source" $name "from" $from) | fromYaml }}
          - secret:
              name: {{ $secret.name | quote }}
              # One source without its secret does not keep the others from being served; the log names it.
              optional: true
              items:
                - key: {{ $secret.key | quote }}
                  path: {{ $name | quote }}
          {{- end }}
    {{- end }}
    {{- with include "jobgate.egressSecrets" . }}
    - name: egress
      projected:
        defaultMode: 0440
        sources:
          {{- . | nindent 10 }}
    {{- end }}
    {{- if eq .Values.store.kind "redis" }}
    {{- $url := .Values.store.redis.existingSecret | default (dict "name" (printf "%s-inline" $fullname) "key" "store.url") }}
    - name: store
      {{- with .Values.store.redis.passwordSecret }}
      projected:
        defaultMode: 0440
        sources:
          - secret:
              name: {{ $url.name | quote }}
              items:
                - key: {{ $url.key | quote }}
                  path: url
          - secret:
              name: {{ .name | quote }}
              items:
                - key: {{ .key | quote }}
                  path: password
      {{- else }}
      secret:
        secretName: {{ $url.name | quote }}
        defaultMode: 0440
        items:
          - key: {{ $url.key | quote }}
            path: url
      {{- end }}
    {{- end }}
    {{- with .Values.tls.existingSecret }}
    - name: tls
      secret:
        secretName: {{ . | quote }}
        defaultMode: 0440
    {{- end }}
    {{- if and (eq (include "jobgate.storeKind" .) "embedded") .Values.store.persistence.existingClaim }}
    - name: data
      persistentVolumeClaim:
        claimName: {{ .Values.store.persistence.existingClaim | quote }}
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- else if .Values.extraVolumes }}
  volumes:
    {{- toYaml .Values.extraVolumes | nindent 4 }}
  {{- end }}
{{- end -}}
