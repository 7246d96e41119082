{{/* Names, labels, and the small arithmetic of durations and sizes. No object is made here. Names are quoted wherever they are written: 2024 and
on are names too. */}}

{{- define "jobgate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "jobgate.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "jobgate.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "jobgate.image" -}}
{{- $registry := (.Values.global | default dict).imageRegistry | default "" | trimSuffix "/" -}}
{{- $repository := list $registry .Values.image.repository | compact | join "/" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* The Secrets for the registry, as a list; nothing without any. */}}
{{- define "jobgate.pullSecrets" -}}
{{- $all := list -}}
{{- range concat (.Values.image.pullSecrets | default list) ((.Values.global | default dict).imagePullSecrets | default list) -}}
{{- $all = append $all (dict "name" (kindIs "map" . | ternary . (dict "name" .)).name) -}}
{{- end -}}
{{- with $all | uniq -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}

{{/* What never changes in the life of a release: selectors cannot. */}}
{{- define "jobgate.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: gateway
{{- end -}}

{{/* Labels of an object: (dict "root" $ "component" "gateway" "extra" (dict)). */}}
{{- define "jobgate.labels" -}}
{{- $labels := dict
  "app.kubernetes.io/name" (default .root.Chart.Name .root.Values.nameOverride | trunc 63 | trimSuffix "-")
  "app.kubernetes.io/instance" .root.Release.Name
  "app.kubernetes.io/component" (.component | default "gateway")
  "app.kubernetes.io/version" (.root.Values.image.tag | default .root.Chart.AppVersion | trunc 63)
  "app.kubernetes.io/managed-by" .root.Release.Service
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") -}}
{{- toYaml (merge $labels (.extra | default dict) (.root.Values.labels | default dict)) -}}
{{- end -}}

{{/* Name, namespace and labels of an object: (dict "root" $ "name" suffix "component" … "extra" …). */}}
{{- define "jobgate.metadata" -}}
name: {{ list (include "jobgate.fullname" .root) .name | compact | join "-" | quote }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "jobgate.labels" . | nindent 2 }}
{{- end -}}

{{/* A duration of the configuration in milliseconds. */}}
{{- define "jobgate.millis" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- $factor := get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000) $unit -}}
{{- if not $factor -}}
{{- fail (printf "config: %q is not a duration: write a whole number with its unit, such as 30s" .) -}}
{{- end -}}
{{- mul $number $factor -}}
{{- end -}}

{{/* A size of the configuration, or a quantity of Kubernetes, in bytes. A plain number comes as 1.073741824e+09. */}}
{{- define "jobgate.bytes" -}}
{{- $text := toString . -}}
{{- $unit := regexFind "[A-Za-z]*$" $text -}}
{{- $factors := dict "" 1 "B" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000
  "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "KiB" 1024 "MiB" 1048576 "GiB" 1073741824 -}}
{{- if not (hasKey $factors $unit) -}}
{{- fail (printf "%q is not a size: write a number with its unit, such as 512Mi" $text) -}}
{{- end -}}
{{- mulf (regexFind "^[0-9.]+([eE][+-]?[0-9]+)?" $text | float64) (get $factors $unit) | int64 -}}
{{- end -}}

{{/* The seconds of a stopping pod: before the signal, and from the signal to the end. */}}
{{- define "jobgate.stopSeconds" -}}
{{- $drain := include "jobgate.millis" ((.Values.config.server | default dict).drain_timeout | default "25s") | int64 -}}
{{- add .Values.preStopSleep (div (add $drain 999) 1000) -}}
{{- end -}}

{{- define "jobgate.graceSeconds" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
{{- add (include "jobgate.stopSeconds" . | int64) 10 -}}
{{- else -}}
{{- .Values.terminationGracePeriodSeconds | int64 -}}
{{- end -}}
{{- end -}}

{{/* Whether there may be more than one pod: "yes" or nothing. */}}
{{- define "jobgate.several" -}}
{{- if or (gt (int .Values.replicas) 1) .Values.autoscaling.enabled -}}yes{{- end -}}
{{- end -}}

{{/* The kind of store: a demo keeps nothing. */}}
{{- define "jobgate.storeKind" -}}
{{- if .Values.demo.enabled -}}memory{{- else -}}{{- .Values.store.kind -}}{{- end -}}
{{- end -}}
