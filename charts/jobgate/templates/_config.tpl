{{/* jobgate's configuration file, as made of the values. No object is made here. */}}

{{/* Where everything secret is mounted, one folder a purpose. */}}
{{- define "jobgate.secretsPath" -}}/run/secrets/jobgate{{- end -}}

{{/* The Secret that holds a source's credential, and the key in it: (dict "root" $ "source" name "from" entry). */}}
{{- define "jobgate.credentialSecret" -}}
{{- $fullname := include "jobgate.fullname" .root -}}
{{- if .from.existingSecret -}}
name: {{ .from.existingSecret.name | quote }}
key: {{ .from.existingSecret.key | quote }}
{{- else if .from.externalSecret -}}
name: {{ include "jobgate.externalName" . | quote }}
key: credential
{{- else -}}
name: {{ printf "%s-inline" $fullname | quote }}
key: {{ printf "source.%s" .source | quote }}
{{- end -}}
{{- end -}}

{{- define "jobgate.externalName" -}}
{{- printf "%s-source-%s" (include "jobgate.fullname" .root) (.source | replace "_" "-") -}}
{{- end -}}

{{/* The whole configuration, as YAML. Every pod needs it, so this is where contradictions are refused. */}}
{{- define "jobgate.config" -}}
{{- include "jobgate.checks" . -}}
{{- $config := deepCopy .Values.config -}}
{{- $secrets := include "jobgate.secretsPath" . -}}
{{- $server := dict
  "listen" (printf "%s:8080" .Values.listenAddress)
  "admin_listen" (printf "%s:9090" .Values.listenAddress) -}}
{{- if .Values.tls.existingSecret -}}
{{- $_ := set $server "tls" (dict "cert" (printf "%s/tls/tls.crt" $secrets) "key" (printf "%s/tls/tls.key" $secrets)) -}}
{{- end -}}
{{- $_ := set $config "server" (merge $server ($config.server | default dict)) -}}
{{- range $name, $from := .Values.sourceCredentials -}}
{{- $file := dict "file" (printf "%s/sources/%s" $secrets $name) -}}
{{- $credential := dict ($from.as | default "bearer") $file -}}
{{- with $from.expiresAt -}}
{{- $_ := set $credential "expires_at" . -}}
{{- end -}}
{{- $_ := set (get $config.sources $name) "credential" $credential -}}
{{- end -}}
{{- range $name, $from := .Values.sourceEgress -}}
{{- $source := get $config.sources $name -}}
{{- $folder := printf "%s/egress/%s" $secrets $name -}}
{{- if $from.proxyCredential -}}
{{- $_ := set $source "proxy_credential" (dict "file" (printf "%s/proxy" $folder)) -}}
{{- end -}}
{{- if $from.ca -}}
{{- $_ := set $source "ca_file" (printf "%s/ca.crt" $folder) -}}
{{- end -}}
{{- if $from.clientCertificate -}}
{{- $_ := set $source "client_cert" (printf "%s/tls.crt" $folder) -}}
{{- $_ := set $source "client_key" (printf "%s/tls.key" $folder) -}}
{{- end -}}
{{- end -}}
{{- $store := dict "kind" .Values.store.kind -}}
{{- if eq .Values.store.kind "embedded" -}}
{{- $_ := set $store "path" "/var/lib/jobgate/store" -}}
{{- else if eq .Values.store.kind "redis" -}}
{{- $redis := dict "url" (dict "file" (printf "%s/store/url" $secrets)) -}}
{{- if .Values.store.redis.passwordSecret -}}
{{- $_ := set $redis "password" (dict "file" (printf "%s/store/password" $secrets)) -}}
{{- end -}}
{{- $_ := set $store "redis" $redis -}}
{{- end -}}
{{- $_ := set $config "store" (merge $store ($config.store | default dict)) -}}
{{- toYaml $config -}}
{{- end -}}

{{/* What must replace the pods when it changes: the whole configuration, or what jobgate cannot take up while it runs. */}}
{{- define "jobgate.restartConfig" -}}
{{- $config := include "jobgate.config" . | fromYaml -}}
{{- if and (eq .Values.configReload "live") (dig "watch_config" true $config.server) -}}
{{- /* docs/hot-reload.md has the same list. */}}
{{- $live := dict
  "cache" (list "fresh_for" "terminal_revalidate_interval")
  "server" (list "allowed_origins" "trusted_proxies")
  "telemetry" (list "log_level") -}}
{{- range $section, $keys := $live -}}
{{- $rest := get $config $section | default dict -}}
{{- range $keys -}}{{- $rest = omit $rest . -}}{{- end -}}
{{- $_ := set $config $section $rest -}}
{{- end -}}
{{- /* A file in which a source becomes another upstream is refused by those that run. A source more or less counts here as well: nothing
tells what was there before, and its credential is a mount more or less anyway. */}}
{{- $upstreams := dict -}}
{{- range $name, $source := $config.sources -}}
{{- $_ := set $upstreams $name $source.upstream -}}
{{- end -}}
{{- $_ := set $config "sources" $upstreams -}}
{{- toYaml (omit $config "credentials" "clients" "jwt" "limits" "streams" "poll") -}}
{{- else -}}
{{- toYaml $config -}}
{{- end -}}
{{- end -}}

{{/* The ports of all addresses that jobgate calls by itself, as JSON: upstreams, and issuers of tokens. */}}
{{- define "jobgate.calledPorts" -}}
{{- $urls := list -}}
{{- range .Values.config.sources -}}
{{- if has (.proxy | default "none") (list "none") -}}
{{- $urls = append $urls .base_url -}}
{{- end -}}
{{- end -}}
{{- range .Values.config.jwt -}}
{{- with (.jwks | default dict).url -}}
{{- $urls = append $urls . -}}
{{- end -}}
{{- end -}}
{{- $ports := list -}}
{{- range compact $urls -}}
{{- $ports = append $ports (include "jobgate.portOf" . | int) -}}
{{- end -}}
{{- $ports | uniq | sortAlpha | toJson -}}
{{- end -}}

{{/* The ports of the proxies that sources and variables name, as JSON. Those of variables not by urlParse: they may hold a password. */}}
{{- define "jobgate.proxyPorts" -}}
{{- $ports := list -}}
{{- range .Values.config.sources -}}
{{- if not (has (.proxy | default "none") (list "none")) -}}
{{- $ports = append $ports (include "jobgate.portOf" .proxy) -}}
{{- end -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if and (has (upper .name) (list "HTTPS_PROXY" "HTTP_PROXY")) .value -}}
{{- $host := regexReplaceAll "[/?#].*$" (regexReplaceAll "^([A-Za-z]+://)?(.*@)?" .value "") "" -}}
{{- $ports = append $ports (regexFind ":[0-9]+$" $host | trimPrefix ":" | default (hasPrefix "https://" .value | ternary "443" "80")) -}}
{{- end -}}
{{- end -}}
{{- $ports | uniq | sortAlpha | toJson -}}
{{- end -}}

{{/* What the projected volume of sourceEgress is made of; nothing without any. */}}
{{- define "jobgate.egressSecrets" -}}
{{- $all := list -}}
{{- range $name, $from := .Values.sourceEgress -}}
{{- $single := dict "proxy" $from.proxyCredential "ca.crt" $from.ca -}}
{{- range $file, $secret := $single -}}
{{- if $secret -}}
{{- $item := dict "key" $secret.key "path" (printf "%s/%s" $name $file) -}}
{{- $all = append $all (dict "secret" (dict "name" $secret.name "optional" true "items" (list $item))) -}}
{{- end -}}
{{- end -}}
{{- with $from.clientCertificate -}}
{{- $items := list -}}
{{- range $file := list "tls.crt" "tls.key" -}}
{{- $items = append $items (dict "key" $file "path" (printf "%s/%s" $name $file)) -}}
{{- end -}}
{{- $all = append $all (dict "secret" (dict "name" . "optional" true "items" $items)) -}}
{{- end -}}
{{- end -}}
{{- with $all -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}

{{/* The URL of Redis as far as the values hold it, for the chart's own Secret. */}}
{{- define "jobgate.redisUrl" -}}
{{- with .Values.store.redis -}}
{{- if .host -}}
{{- $user := "" -}}
{{- with .username -}}{{- $user = printf "%s@" . -}}{{- end -}}
{{- printf "%s://%s%s:%v" (.tls | ternary "rediss" "redis") $user .host .port -}}
{{- else -}}
{{- .inline -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The port of a URL. */}}
{{- define "jobgate.portOf" -}}
{{- $parts := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $parts.host | trimPrefix ":" -}}
{{- $port | default (eq $parts.scheme "http" | ternary "80" "443") -}}
{{- end -}}

{{/* The ports of Redis as JSON. Not by urlParse: what it says to a URL that does not read would repeat the password. */}}
{{- define "jobgate.redisPorts" -}}
{{- $ports := list -}}
{{- range regexSplit "[,\\s]+" (include "jobgate.redisUrl" . | trim) -1 | compact -}}
{{- $host := regexReplaceAll "[/?#].*$" (regexReplaceAll "^([a-z]+://)?(.*@)?" . "") "" -}}
{{- $ports = append $ports (regexFind ":[0-9]+$" $host | trimPrefix ":" | default "6379") -}}
{{- end -}}
{{- /* Sentinels name a server that has a port of its own. */}}
{{- if or (not $ports) (eq (dig "redis" "mode" "" (.Values.config.store | default dict)) "sentinel") -}}
{{- $ports = append $ports "6379" -}}
{{- end -}}
{{- $ports | uniq | sortAlpha | toJson -}}
{{- end -}}

{{/* The options of a demo as environment variables, as JSON: it has no file of configuration. Nothing without a demo. */}}
{{- define "jobgate.demoEnv" -}}
{{- $env := list -}}
{{- if .Values.demo.enabled -}}
{{- range $section, $options := .Values.config -}}
{{- range $option, $value := $options -}}
{{- $env = append $env (dict "name" (printf "JOBGATE_%s__%s" (upper $section) (upper $option)) "value" (kindIs "string" $value | ternary $value (toJson $value))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $env | toJson -}}
{{- end -}}
