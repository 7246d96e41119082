{{/* Contradictions between values, each refused with what to do about it. What a single value may be is in values.schema.json. */}}

{{- define "jobgate.checks" -}}
{{- include "jobgate.checkRenamed" . -}}
{{- include "jobgate.checkRemoved" . -}}
{{- if .Values.demo.enabled -}}
{{- include "jobgate.checkDemo" . -}}
{{- else -}}
{{- include "jobgate.checkWho" . -}}
{{- include "jobgate.checkSecrets" . -}}
{{- include "jobgate.checkEgress" . -}}
{{- end -}}
{{- include "jobgate.checkEnv" . -}}
{{- include "jobgate.checkStore" . -}}
{{- include "jobgate.checkStop" . -}}
{{- include "jobgate.checkDoors" . -}}
{{- include "jobgate.checkService" . -}}
{{- include "jobgate.checkPod" . -}}
{{- end -}}

{{/* Options of jobgate with a new name. The schema accepts the old ones, so that the message can give the new one. */}}
{{- define "jobgate.checkRenamed" -}}
{{- range $old, $new := dict
  "follow.fastest" "poll.min_interval"
  "follow.slowest" "poll.max_interval"
  "follow.linger" "poll.unsubscribe_grace"
  "follow.missing_for" "poll.missing_for"
  "follow.unknown_for" "poll.unknown_for"
  "follow.at_most" "poll.max_duration"
  "cache.rerun_check" "cache.terminal_revalidate_interval"
  "credentials.reread" "credentials.reload_interval"
  "server.body_pace" "server.min_body_rate" -}}
{{- $section := get $.Values.config (splitList "." $old | first) -}}
{{- if and (kindIs "map" $section) (hasKey ($section | default dict) (splitList "." $old | last)) -}}
{{- fail (printf "config.%s: is now config.%s" $old $new) -}}
{{- end -}}
{{- end -}}
{{- if hasKey .Values.config "follow" -}}
{{- fail "config.follow: is now config.poll" -}}
{{- end -}}
{{- end -}}

{{/* Options of jobgate that were removed, with what takes their place, as in src/config/removed.rs. The schema accepts them. */}}
{{- define "jobgate.checkRemoved" -}}
{{- range $option, $instead := dict
  "server.body_timeout" "the time is half of server.request_timeout"
  "server.write_timeout" "the time is server.idle_timeout"
  "server.max_answer_bytes" "the limit is a sixteenth of server.answer_memory"
  "sources.*.max_rows_body" "the limit is cache.rows_max_bytes"
  "sources.*.budget.max_wait" "the time is two thirds of status_timeout"
  "credentials.warn_before" "the log warns 7d, 1d and 1h before the expiry; for another time, alert on jobgate_source_credential_expiry_timestamp_seconds"
  "jwt[].leeway" "the time is 30s"
  "jwt[].refresh" "the keys are reloaded every 5m"
  "graphql.max_tokens" "the limit is 2000"
  "graphql.max_depth" "the limit is 12"
  "graphql.max_aliases" "the limit is 50; request many jobs with jobs(refs)"
  "graphql.max_root_fields" "the limit is 20; request many jobs with jobs(refs)"
  "graphql.max_directives" "the limit is 20"
  "limits.bad_credentials_per_minute" "the limit is 30"
  "streams.init_timeout" "the time is half of server.header_timeout"
  "streams.pong_timeout" "the time is streams.ping_interval plus 10s"
  "streams.heartbeat" "the time is three fifths of streams.ping_interval"
  "streams.max_operations" "the limit is 200; streams.max_operations_per_client limits a client"
  "streams.max_message" "the limit is a quarter of server.max_body, at least 16KiB"
  "cache.missing_for" "the time is 5s"
  "cache.rows_for" "the time is 10m"
  "store.redis.max_record" "the limit is 1MiB"
  "telemetry.otlp_protocol" "set the environment variable OTEL_EXPORTER_OTLP_PROTOCOL"
  "telemetry.trace_key" "the key is derived from watch_tokens.secret" -}}
{{- include "jobgate.refuseRemoved" (dict "node" $.Values.config "path" "config" "steps" (splitList "." $option) "instead" $instead) -}}
{{- end -}}
{{- end -}}

{{/* Fails if the option `steps` is below `node`, whose path is `path`. */}}
{{- define "jobgate.refuseRemoved" -}}
{{- if kindIs "map" .node -}}
{{- $context := . -}}
{{- $step := first .steps -}}
{{- $below := rest .steps -}}
{{- $key := trimSuffix "[]" $step -}}
{{- if eq $step "*" -}}
{{- range $name, $node := .node -}}
{{- include "jobgate.refuseRemoved" (dict "node" $node "path" (printf "%s.%s" $context.path $name) "steps" $below "instead" $context.instead) -}}
{{- end -}}
{{- else if ne $step $key -}}
{{- range $index, $node := get .node $key | default list -}}
{{- include "jobgate.refuseRemoved" (dict "node" $node "path" (printf "%s.%s[%d]" $context.path $key $index) "steps" $below "instead" $context.instead) -}}
{{- end -}}
{{- else if and $below (hasKey .node $step) -}}
{{- include "jobgate.refuseRemoved" (dict "node" (get .node $step) "path" (printf "%s.%s" .path $step) "steps" $below "instead" .instead) -}}
{{- else if hasKey .node $step -}}
{{- fail (printf "%s.%s: was removed, so delete it: %s" .path $step .instead) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whom it asks, who may ask, and what belongs to the chart. */}}
{{- define "jobgate.checkWho" -}}
{{- if not .Values.config.sources -}}
{{- fail "config.sources: is empty: name at least one account of an upstream (docs/kubernetes.md has an example)" -}}
{{- end -}}
{{- if not (or .Values.config.clients .Values.config.jwt) -}}
{{- fail "config.clients: is empty, and so is config.jwt: without either anyone who reaches the service, or an ingress of it, could read every job; run `jobgate key new NAME` and put the line it prints here" -}}
{{- end -}}
{{- range $section, $keys := dict "server" (list "listen" "admin_listen" "tls") "store" (list "kind" "path") -}}
{{- range $key := $keys -}}
{{- if hasKey (get $.Values.config $section | default dict) $key -}}
{{- $instead := get (dict "listen" "listenAddress" "admin_listen" "listenAddress" "tls" "tls.existingSecret" "kind" "store.kind" "path" "store.persistence") $key -}}
{{- fail (printf "config.%s.%s: belongs to the chart: use %s" $section $key $instead) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if dig "store" "redis" "url" "" (.Values.config | toYaml | fromYaml) -}}
{{- fail "config.store.redis.url: belongs to the chart: use store.redis" -}}
{{- end -}}
{{- range $name, $source := .Values.config.sources -}}
{{- $loopback := regexMatch "(?i)^http://(localhost|127\\.[0-9.]+|\\[::1\\])([:/]|$)" ($source.base_url | default "") -}}
{{- if and (hasPrefix "http://" ($source.base_url | default "" | lower)) (not $source.allow_plaintext) (not $loopback) -}}
{{- fail (printf "config.sources.%s.base_url: must start with https://, because plain HTTP exposes the credential; allow_plaintext: true permits it" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Variables that would change options. */}}
{{- define "jobgate.checkEnv" -}}
{{- range .Values.extraEnv -}}
{{- if hasPrefix "JOBGATE_" .name -}}
{{- fail (printf "extraEnv: %s would overrule the configuration behind the chart's back: put the option under config" .name) -}}
{{- end -}}
{{- end -}}
{{- range .Values.envFrom -}}
{{- if hasPrefix "JOBGATE_" (.prefix | default "") -}}
{{- fail (printf "envFrom: the prefix %s would overrule the configuration behind the chart's back: put the options under config" .prefix) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A demo has simulated upstreams, one pod, no clients and nothing stored: what says otherwise is refused. */}}
{{- define "jobgate.checkDemo" -}}
{{- $instead := "remove it, or set demo.enabled to false" -}}
{{- range $section, $options := .Values.config -}}
{{- if and $options (not (has $section (list "server" "streams" "telemetry"))) -}}
{{- fail (printf "config.%s: is not used by a demo (demo.enabled), which has sources, clients and a store of its own: %s" $section $instead) -}}
{{- end -}}
{{- range $option, $value := $options -}}
{{- if or (kindIs "slice" $value) (kindIs "map" $value) (kindIs "invalid" $value) (and (eq $section "server") (has $option (list "listen" "admin_listen"))) -}}
{{- fail (printf "config.%s.%s: cannot be set in a demo (demo.enabled): %s" $section $option $instead) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $given := dict
  "sourceCredentials" .Values.sourceCredentials
  "sourceEgress" .Values.sourceEgress
  "store.persistence.existingClaim" .Values.store.persistence.existingClaim
  "tls.existingSecret" .Values.tls.existingSecret -}}
{{- if $given -}}
{{- fail (printf "%s: is not used by a demo (demo.enabled): %s" $name $instead) -}}
{{- end -}}
{{- end -}}
{{- if eq .Values.store.kind "redis" -}}
{{- fail (printf "store.kind: redis is not used by a demo (demo.enabled), which stores nothing: %s" $instead) -}}
{{- end -}}
{{- if include "jobgate.several" . -}}
{{- fail (printf "%s: a demo (demo.enabled) is one pod: %s" (.Values.autoscaling.enabled | ternary "autoscaling.enabled" (printf "replicas: %v" .Values.replicas)) $instead) -}}
{{- end -}}
{{- if .Values.ingress.enabled -}}
{{- fail "ingress.enabled: a demo (demo.enabled) has no clients, so only `kubectl port-forward` reaches it: disable one of the two" -}}
{{- end -}}
{{- if .Values.httpRoute.enabled -}}
{{- fail "httpRoute.enabled: a demo (demo.enabled) has no clients, so only `kubectl port-forward` reaches it: disable one of the two" -}}
{{- end -}}
{{- if ne .Values.service.type "ClusterIP" -}}
{{- fail (printf "service.type: %s is for a gateway that others reach, and only `kubectl port-forward` reaches a demo (demo.enabled): use ClusterIP" .Values.service.type) -}}
{{- end -}}
{{- end -}}

{{/* How calls leave. No URL of a proxy is repeated: it may hold a password in the wrong place. */}}
{{- define "jobgate.checkEgress" -}}
{{- range $name, $source := .Values.config.sources -}}
{{- if regexMatch "^[A-Za-z]+://[^/]*@" ($source.proxy | default "") -}}
{{- fail (printf "config.sources.%s.proxy: must not contain a user or a password: put them into a Secret and set it in sourceEgress.%s.proxyCredential" $name $name) -}}
{{- end -}}
{{- end -}}
{{- range $name, $from := .Values.sourceEgress -}}
{{- if not (hasKey $.Values.config.sources $name) -}}
{{- fail (printf "sourceEgress.%s: config.sources has no such source: add it, or remove this" $name) -}}
{{- end -}}
{{- $source := get $.Values.config.sources $name -}}
{{- range $value, $options := dict "proxyCredential" (list "proxy_credential") "ca" (list "ca_file") "clientCertificate" (list "client_cert" "client_key") -}}
{{- range $option := $options -}}
{{- if and (get $from $value) (get $source $option) -}}
{{- fail (printf "config.sources.%s.%s: is given by sourceEgress.%s.%s as well: keep one" $name $option $name $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $proxy := $source.proxy | default "none" -}}
{{- if and $from.proxyCredential (eq $proxy "none") -}}
{{- fail (printf "sourceEgress.%s.proxyCredential: config.sources.%s.proxy names no proxy: add it, or remove this" $name $name) -}}
{{- end -}}
{{- if hasPrefix "http://" ($source.base_url | default "" | lower) -}}
{{- if $from.clientCertificate -}}
{{- fail (printf "sourceEgress.%s.clientCertificate: is not used, because config.sources.%s.base_url is http://: use https://, or remove this" $name $name) -}}
{{- end -}}
{{- if and $from.ca (not (hasPrefix "https://" $proxy)) -}}
{{- fail (printf "sourceEgress.%s.ca: is not used, because config.sources.%s.base_url is http://: use https://, or remove this" $name $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What a Service can be. */}}
{{- define "jobgate.checkService" -}}
{{- $service := .Values.service -}}
{{- if and $service.externalTrafficPolicy (eq $service.type "ClusterIP") -}}
{{- fail "service.externalTrafficPolicy: is for NodePort and LoadBalancer alone: set service.type, or remove it" -}}
{{- end -}}
{{- range list "loadBalancerClass" "loadBalancerSourceRanges" -}}
{{- if and (get $service .) (ne $service.type "LoadBalancer") -}}
{{- fail (printf "service.%s: is for LoadBalancer alone, but service.type is %s: set it to LoadBalancer, or remove this" . $service.type) -}}
{{- end -}}
{{- end -}}
{{- if and (eq (len ($service.ipFamilies | default list)) 2) (not (hasSuffix "DualStack" ($service.ipFamilyPolicy | default ""))) -}}
{{- fail "service.ipFamilies: two need an ipFamilyPolicy of PreferDualStack or RequireDualStack" -}}
{{- end -}}
{{- $six := or (has "IPv6" ($service.ipFamilies | default list)) (hasSuffix "DualStack" ($service.ipFamilyPolicy | default "")) -}}
{{- if and $six (eq .Values.listenAddress "0.0.0.0") -}}
{{- fail "service: would send IPv6 to pods that listen on IPv4 alone: set listenAddress to \"[::]\"" -}}
{{- end -}}
{{- end -}}

{{/* What belongs to a parent chart, and what to the pod. */}}
{{- define "jobgate.checkPod" -}}
{{- if eq (toString .Values.enabled) "false" -}}
{{- fail "enabled: false keeps nothing from being made here: give the dependency of the parent chart the condition jobgate.enabled, or remove this" -}}
{{- end -}}
{{- $registry := regexFind "^([^/]*[.:][^/]*|localhost)/" .Values.image.repository -}}
{{- if and (.Values.global | default dict).imageRegistry $registry -}}
{{- fail (printf "image.repository: names the registry %s, and global.imageRegistry names one too: leave it out of image.repository, or empty the global one" (trimSuffix "/" $registry)) -}}
{{- end -}}
{{- $names := list "jobgate" -}}
{{- range concat (.Values.initContainers | default list) (.Values.extraContainers | default list) -}}
{{- if has .name $names -}}
{{- fail (printf "extraContainers, initContainers: the name %s is taken: give the container another one" .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- end -}}

{{/* One place for each secret. */}}
{{- define "jobgate.checkSecrets" -}}
{{- range $name, $source := .Values.config.sources -}}
{{- $from := get ($.Values.sourceCredentials | default dict) $name -}}
{{- if and $from (hasKey $source "credential") -}}
{{- fail (printf "config.sources.%s.credential: is given by sourceCredentials.%s as well: keep one" $name $name) -}}
{{- end -}}
{{- if not (or $from (hasKey $source "credential")) -}}
{{- fail (printf "sourceCredentials.%s: is missing: say where the credential of the source is, such as { existingSecret: { name: …, key: … } }" $name) -}}
{{- end -}}
{{- end -}}
{{- $external := dict -}}
{{- range $name, $from := .Values.sourceCredentials -}}
{{- if not (hasKey $.Values.config.sources $name) -}}
{{- fail (printf "sourceCredentials.%s: config.sources has no such source: add it, or remove this" $name) -}}
{{- end -}}
{{- $ways := list -}}
{{- range list "existingSecret" "externalSecret" "inline" -}}
{{- if get $from . -}}{{- $ways = append $ways . -}}{{- end -}}
{{- end -}}
{{- if ne (len $ways) 1 -}}
{{- fail (printf "sourceCredentials.%s: needs exactly one of existingSecret, externalSecret and inline, and has %s" $name (join " and " $ways | default "none")) -}}
{{- end -}}
{{- if $from.externalSecret -}}
{{- if not $.Values.externalSecrets.storeName -}}
{{- fail (printf "externalSecrets.storeName: is missing: sourceCredentials.%s is to be read from it" $name) -}}
{{- end -}}
{{- $object := include "jobgate.externalName" (dict "root" $ "source" $name) -}}
{{- with get $external $object -}}
{{- fail (printf "sourceCredentials.%s: its ExternalSecret would be called like that of %s: rename one of the sources" $name .) -}}
{{- end -}}
{{- $_ := set $external $object $name -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* One store, and as many pods as it bears. */}}
{{- define "jobgate.checkStore" -}}
{{- $kind := .Values.store.kind -}}
{{- if and (eq $kind "embedded") (include "jobgate.several" .) -}}
{{- fail (printf "store.kind: embedded keeps the jobs on a volume of one pod, but %s: use store.kind redis for several pods, or one pod" (.Values.autoscaling.enabled | ternary "autoscaling is enabled" (printf "replicas is %v" .Values.replicas))) -}}
{{- end -}}
{{- if and (ne $kind "embedded") .Values.store.persistence.existingClaim -}}
{{- fail (printf "store.persistence.existingClaim: store.kind %s keeps nothing on a volume: use store.kind embedded, or remove the claim" $kind) -}}
{{- end -}}
{{- $redis := .Values.store.redis -}}
{{- $ways := list -}}
{{- range list "existingSecret" "host" "inline" -}}
{{- if get $redis . -}}{{- $ways = append $ways . -}}{{- end -}}
{{- end -}}
{{- if and (eq $kind "redis") (not $ways) -}}
{{- fail "store.redis: is empty: say where the URL of Redis is, such as { existingSecret: { name: …, key: … } }, or its host" -}}
{{- end -}}
{{- if gt (len $ways) 1 -}}
{{- fail (printf "store.redis: has both %s: keep one" (join " and " $ways)) -}}
{{- end -}}
{{- range list "username" "passwordSecret" "tls" -}}
{{- if and (get $redis .) (not $redis.host) -}}
{{- fail (printf "store.redis.%s: goes with store.redis.host: give the host, or put it into the URL" .) -}}
{{- end -}}
{{- end -}}
{{- if dig "redis" "password" "" ($.Values.config.store | default dict) -}}
{{- fail "config.store.redis.password: belongs to the chart: use store.redis.passwordSecret" -}}
{{- end -}}
{{- if and (ne $kind "redis") $ways -}}
{{- fail (printf "store.redis: is given, but store.kind is %s: use store.kind redis, or remove it" $kind) -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- fail "autoscaling.minReplicas: is above autoscaling.maxReplicas" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (not (or .Values.autoscaling.targetCPU .Values.autoscaling.targetStreams)) -}}
{{- fail "autoscaling: has nothing to go by: set targetCPU or targetStreams above 0" -}}
{{- end -}}
{{- with ((.Values.resources | default dict).limits | default dict).memory -}}
{{- $cache := $.Values.config.cache | default dict -}}
{{- $jobs := include "jobgate.bytes" ($cache.max_bytes | default "256MiB") | int64 -}}
{{- $rows := include "jobgate.bytes" ($cache.rows_max_bytes | default "64MiB") | int64 -}}
{{- $answers := include "jobgate.bytes" (($.Values.config.server | default dict).answer_memory | default "256MiB") | int64 -}}
{{- $least := add $jobs $rows $answers 134217728 -}}
{{- if lt (include "jobgate.bytes" . | int64) $least -}}
{{- fail (printf "resources.limits.memory: %v is too little for cache.max_bytes, cache.rows_max_bytes, server.answer_memory and 128Mi for the rest: give at least %dMi, or shrink one of them" . (div (add $least 1048575) 1048576)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Stopping: jobgate ends before it is killed. */}}
{{- define "jobgate.checkStop" -}}
{{- $server := .Values.config.server | default dict -}}
{{- $timeout := $server.drain_timeout | default "25s" -}}
{{- $delay := $server.drain_delay | default "0s" -}}
{{- $window := (.Values.config.streams | default dict).drain_window | default "10s" -}}
{{- $longest := include "jobgate.millis" $timeout | int64 -}}
{{- if ge (include "jobgate.millis" $delay | int64) $longest -}}
{{- fail (printf "config.server.drain_delay: %s must be shorter than config.server.drain_timeout (%s), which includes it" $delay $timeout) -}}
{{- end -}}
{{- if gt (add (include "jobgate.millis" $delay | int64) (include "jobgate.millis" $window | int64)) $longest -}}
{{- fail (printf "config.streams.drain_window: %s after a drain_delay of %s does not fit into config.server.drain_timeout (%s)" $window $delay $timeout) -}}
{{- end -}}
{{- $needed := include "jobgate.stopSeconds" . | int64 -}}
{{- if le (include "jobgate.graceSeconds" . | int64) $needed -}}
{{- fail (printf "terminationGracePeriodSeconds: %v is too short: config.server.drain_timeout and preStopSleep take %d seconds, so the pod would be killed while it drains; give more, or null" .Values.terminationGracePeriodSeconds $needed) -}}
{{- end -}}
{{- if and .Values.preStopSleep (semverCompare "<1.30.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail (printf "preStopSleep: needs Kubernetes 1.30, this is %s: leave it 0 and raise config.server.drain_delay" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- end -}}

{{/* Ways in. */}}
{{- define "jobgate.checkDoors" -}}
{{- if .Values.ingress.enabled -}}
{{- if not .Values.ingress.hosts -}}
{{- fail "ingress.hosts: is empty: name the hosts" -}}
{{- end -}}
{{- if and (eq .Values.ingress.controller "alb") (gt (int .Values.ingress.idleTimeoutSeconds) 4000) -}}
{{- fail (printf "ingress.idleTimeoutSeconds: %v is more than a load balancer of AWS takes: 4000 at most" (int .Values.ingress.idleTimeoutSeconds)) -}}
{{- end -}}
{{- if not (or .Values.ingress.tls .Values.ingress.allowPlaintext) -}}
{{- fail "ingress.tls: is empty, so keys would cross the network in the clear: give a certificate, or set ingress.allowPlaintext where TLS ends further out" -}}
{{- end -}}
{{- $streams := .Values.config.streams | default dict -}}
{{- $idle := mul .Values.ingress.idleTimeoutSeconds 1000 -}}
{{- range $what, $duration := dict
  "config.server.request_timeout" ((.Values.config.server | default dict).request_timeout | default "30s")
  "config.streams.ping_interval" ($streams.ping_interval | default "25s") -}}
{{- if le $idle (include "jobgate.millis" $duration | int64) -}}
{{- fail (printf "ingress.idleTimeoutSeconds: must be above %s (%s), or the ingress cuts what is only waiting" $what $duration) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs: is empty: name the Gateway" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled .Values.tls.existingSecret -}}
{{- fail "httpRoute: the Gateway would speak without TLS to pods that speak it (tls.existingSecret): let TLS end at the Gateway, or make a route with a BackendTLSPolicy of your own" -}}
{{- end -}}
{{- if and .Values.metrics.serviceMonitor.enabled .Values.networkPolicy.enabled (not .Values.networkPolicy.adminFrom) -}}
{{- fail "networkPolicy.adminFrom: is empty, so the Prometheus of metrics.serviceMonitor could not reach the admin port: name its namespace" -}}
{{- end -}}
{{- end -}}
