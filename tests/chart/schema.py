"""Makes charts/jobgate/values.schema.json: what the chart's own values may be (below), and under `config` what
`jobgate config-schema` says, so that a misspelt option is refused before anything reaches the cluster."""

import json
import pathlib
import re
import sys


def text(**more):
    return {"type": "string", **more}


def whole(minimum=0, maximum=None):
    return {"type": "integer", "minimum": minimum, **({} if maximum is None else {"maximum": maximum})}


def one_of(*words):
    return {"type": "string", "enum": list(words)}


def shape(needed=(), **properties):
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        **({"required": list(needed)} if needed else {}),
    }


def listed(items, **more):
    return {"type": "array", "items": items, **more}


FLAG = {"type": "boolean"}
# What Kubernetes defines itself: its own schemas judge it.
THEIRS = {"type": "object"}
WORDS = {"type": "object", "additionalProperties": {"type": "string"}}
NAME = text(maxLength=253, pattern="^$|^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
SHORT = text(pattern="^[1-9][0-9]*(ms|s|m|h)$")
PORT = whole(1, 65535)
HOST = text(minLength=1, pattern=r"^(\*\.)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
KEY_IN_SECRET = shape(
    needed=["name", "key"], name=text(minLength=1, maxLength=253), key=text(minLength=1, pattern="^[-._a-zA-Z0-9]+$")
)
# A number or a boolean there would be refused by Kubernetes.
ENV = shape(needed=["name"], name=text(minLength=1), value=text(), valueFrom=THEIRS)
CONTAINER = {"type": "object", "required": ["name"], "properties": {"name": text(minLength=1)}}
MAYBE_KEY_IN_SECRET = {"anyOf": [{"type": "object", "maxProperties": 0}, KEY_IN_SECRET]}
BLOCK = shape(needed=["cidr"], cidr=text(minLength=3), **{"except": listed(text())})


def or_null(node):
    """For an overlay that takes back what another file of values gave."""
    return {"anyOf": [{"type": "null"}, node]}


SOURCE_CREDENTIAL = shape(
    **{"as": one_of("bearer", "api_key")},
    existingSecret=or_null(KEY_IN_SECRET),
    externalSecret=or_null(shape(needed=["key"], key=text(minLength=1), property=text())),
    inline=or_null(text()),
    expiresAt=text(),
)


def values(config):
    return shape(
        # A parent chart's other charts have theirs there.
        **{
            "global": {
                "type": "object",
                "properties": {
                    "imageRegistry": text(),
                    "imagePullSecrets": listed({"anyOf": [NAME, shape(needed=["name"], name=NAME)]}),
                },
            }
        },
        enabled=FLAG,
        nameOverride=NAME,
        fullnameOverride=NAME,
        labels=WORDS,
        image=shape(
            repository=text(minLength=1, pattern="^[^:@]+(:[0-9]+/[^:@]+)?$"),
            tag=text(pattern="^$|^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"),
            digest=text(pattern="^$|^sha256:[0-9a-f]{64}$"),
            pullPolicy=one_of("IfNotPresent", "Always", "Never"),
            pullSecrets=listed(shape(needed=["name"], name=NAME)),
        ),
        demo=shape(enabled=FLAG),
        config=config,
        sourceCredentials={
            "type": "object",
            "propertyNames": {"pattern": "^[a-z0-9_-]{1,63}$"},
            "additionalProperties": SOURCE_CREDENTIAL,
        },
        sourceEgress={
            "type": "object",
            "propertyNames": {"pattern": "^[a-z0-9_-]{1,63}$"},
            "additionalProperties": shape(
                proxyCredential=or_null(KEY_IN_SECRET), ca=or_null(KEY_IN_SECRET), clientCertificate=or_null(NAME)
            ),
        },
        externalSecrets=shape(storeName=NAME, storeKind=one_of("SecretStore", "ClusterSecretStore"), refreshInterval=SHORT),
        configReload=one_of("restart", "live"),
        store=shape(
            kind=one_of("embedded", "redis", "memory"),
            persistence=shape(
                size=text(pattern="^[1-9][0-9]*(Mi|Gi|Ti)$"),
                storageClassName=NAME,
                accessMode=one_of("ReadWriteOnce", "ReadWriteOncePod"),
                existingClaim=NAME,
                whenDeleted=one_of("Retain", "Delete"),
            ),
            redis=shape(
                existingSecret=MAYBE_KEY_IN_SECRET,
                inline=text(pattern="^$|^rediss?://"),
                host=text(pattern=r"^$|^\[[0-9a-fA-F:.]+\]$|^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?$"),
                port=PORT,
                tls=FLAG,
                username=text(pattern="^[-A-Za-z0-9._~]*$"),
                passwordSecret=MAYBE_KEY_IN_SECRET,
            ),
        ),
        replicas=whole(1, 1000),
        autoscaling=shape(
            enabled=FLAG,
            minReplicas=whole(1, 1000),
            maxReplicas=whole(1, 1000),
            targetCPU=whole(0, 1000),
            targetStreams=whole(),
            streamsMetric=text(pattern="^[a-zA-Z_:][a-zA-Z0-9_:]*$"),
        ),
        podDisruptionBudget=shape(
            enabled=FLAG,
            maxUnavailable={"anyOf": [whole(1), text(pattern="^([1-9][0-9]?|100)%$")]},
        ),
        terminationGracePeriodSeconds={"type": ["integer", "null"], "minimum": 1},
        preStopSleep=whole(0, 3600),
        resources=shape(requests=THEIRS, limits=THEIRS, claims=listed(THEIRS)),
        listenAddress=one_of("0.0.0.0", "[::]"),
        tls=shape(existingSecret=NAME),
        service=shape(
            type=one_of("ClusterIP", "NodePort", "LoadBalancer"),
            port=PORT,
            annotations=WORDS,
            externalTrafficPolicy=text(pattern="^(|Cluster|Local)$"),
            ipFamilyPolicy=text(pattern="^(|SingleStack|PreferDualStack|RequireDualStack)$"),
            ipFamilies=listed(one_of("IPv4", "IPv6"), uniqueItems=True, maxItems=2),
            loadBalancerClass=text(),
            loadBalancerSourceRanges=listed(text(pattern="^[0-9a-fA-F:.]+/[0-9]+$")),
        ),
        ingress=shape(
            enabled=FLAG,
            className=NAME,
            controller=one_of("nginx", "haproxy", "alb", "other"),
            hosts=listed(HOST, uniqueItems=True),
            path=text(pattern="^/"),
            pathType=one_of("Prefix", "Exact", "ImplementationSpecific"),
            tls=listed(shape(hosts=listed(HOST), secretName=NAME)),
            allowPlaintext=FLAG,
            idleTimeoutSeconds=whole(1, 86400),
            annotations=WORDS,
        ),
        httpRoute=shape(
            enabled=FLAG,
            parentRefs=listed(
                shape(
                    needed=["name"],
                    name=NAME,
                    namespace=NAME,
                    sectionName=NAME,
                    port=PORT,
                    group=text(),
                    kind=text(),
                )
            ),
            hostnames=listed(HOST, uniqueItems=True),
            annotations=WORDS,
        ),
        networkPolicy=shape(
            enabled=FLAG,
            publicFrom=listed(THEIRS),
            adminFrom=listed(THEIRS),
            egress=shape(
                upstreams=listed(BLOCK),
                dns=shape(to=listed(THEIRS), port=PORT),
                redis=shape(to=listed(THEIRS), ports=or_null(listed(PORT, minItems=1))),
                proxy=shape(to=listed(THEIRS), ports=or_null(listed(PORT, minItems=1))),
                collector=shape(to=listed(THEIRS), port=or_null(PORT)),
                extra=listed(THEIRS),
            ),
        ),
        serviceAccount=shape(create=FLAG, name=NAME, annotations=WORDS),
        metrics=shape(
            serviceMonitor=shape(
                enabled=FLAG,
                interval=SHORT,
                labels=WORDS,
                relabelings=listed(THEIRS),
                metricRelabelings=listed(THEIRS),
            ),
            prometheusRule=shape(enabled=FLAG, labels=WORDS, extraGroups=listed(THEIRS)),
            dashboard=shape(enabled=FLAG, labels=WORDS, docsUrl=text(pattern="^$|^https?://[^\"\\\\\\s]+$")),
        ),
        probes=shape(
            startupSeconds=whole(2, 3600), readinessPeriodSeconds=whole(1, 300), livenessPeriodSeconds=whole(1, 300)
        ),
        topologySpread=shape(enabled=FLAG, whenUnsatisfiable=one_of("ScheduleAnyway", "DoNotSchedule")),
        podSecurityContext={
            "type": "object",
            "properties": {"runAsNonRoot": {"const": True}},
            "required": ["runAsNonRoot"],
        },
        annotations=WORDS,
        podAnnotations=WORDS,
        podLabels=WORDS,
        nodeSelector=WORDS,
        tolerations=listed(THEIRS),
        affinity=THEIRS,
        priorityClassName=NAME,
        hostAliases=listed(THEIRS),
        dnsConfig=THEIRS,
        extraEnv=listed(ENV),
        envFrom=listed(THEIRS),
        initContainers=listed(CONTAINER),
        extraContainers=listed(CONTAINER),
        extraVolumes=listed(THEIRS),
        extraVolumeMounts=listed(THEIRS),
    )


def empty(node):
    """Whether it may be left empty, so that the templates take null for none."""
    if "anyOf" in node:
        return any(map(empty, node["anyOf"]))
    if node.get("type") == "object":
        return "properties" not in node
    if node.get("type") == "string":
        return "enum" not in node and not node.get("minLength") and bool(re.search(node.get("pattern", ""), ""))
    return not (node.get("type") == "integer" and node["minimum"])


def whole_sections(node):
    """Helm takes away what an overlay sets to null, and a template would fall over the gap: say that it must be there. The chart's
    own defaults are laid below before anybody looks, so a file of one's own is as short as ever."""
    node["required"] = [key for key, below in node["properties"].items() if key not in ("resources", "global") and not empty(below)]
    for key, below in node["properties"].items():
        if below.get("properties") and key not in ("global", "config", "resources", "podSecurityContext"):
            whole_sections(below)
    return node


def partial(node):
    """A configuration's schema without what only the whole file must have: the chart adds to it. A choice stays one."""
    if isinstance(node, list):
        return [partial(one) for one in node]
    if isinstance(node, dict):
        drop = {"$schema", "title"} | ({"required"} if isinstance(node.get("required"), list) else set())
        return {key: value if key == "oneOf" else partial(value) for key, value in node.items() if key not in drop}
    return node


def renamed_options():
    """The old and the new name of each option of jobgate that has a new one."""
    table = (pathlib.Path(__file__).resolve().parents[2] / "src/config/renamed.rs").read_text(encoding="utf-8")
    return re.findall(r'^    \("([a-z_]+\.[a-z_]+)", "([a-z_]+\.[a-z_]+)"\),$', table, re.M)


def renamed(config):
    """Accepts the old names of options, so that the templates can refuse them with the new ones (_checks.tpl)."""
    for old, new in renamed_options():
        section, key = old.split(".")
        known = config["properties"].setdefault(section, {"type": "object", "properties": {}})
        known["properties"][key] = {"description": f"Refused: is now {new}."}
    return config


def removed_options():
    """Each option of jobgate that was removed, with what takes its place: `*` is a source, `[]` an entry of a list."""
    table = (pathlib.Path(__file__).resolve().parents[2] / "src/config/removed.rs").read_text(encoding="utf-8")
    return re.findall(r'\(\s*"([a-z_.*\[\]]+\.[a-z_]+)",\s*"([^"]+)",?\s*\),', table)


def removed(config):
    """Accepts the removed options, so that the templates can refuse them with what takes their place (_checks.tpl)."""
    for option, instead in removed_options():
        *above, key = option.split(".")
        node = config
        for step in above:
            name = step.removesuffix("[]")
            node = node["additionalProperties"] if step == "*" else node["properties"][name]
            node = node if name == step else node["items"]
        node["properties"][key] = {"description": f"Refused: was removed: {instead}."}
    return config


def main():
    config = removed(renamed(partial(json.load(sys.stdin))))
    whole_schema = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the chart jobgate"}
    whole_schema.update(whole_sections(values(config)))
    json.dump(whole_schema, sys.stdout, indent=1, ensure_ascii=False)
    print()


if __name__ == "__main__":
    main()
