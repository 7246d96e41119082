"""Checks the chart: every file of values/ is rendered by both Helms, equals its snapshot, fits the schemas of the lowest and the highest
Kubernetes and of the custom resources, gives a configuration that jobgate itself takes, and survives a policy scan; every row of
refused.yaml is refused with its reason. With --write it writes snapshots, schema and README in the place of comparing them."""

import argparse
import base64
import concurrent.futures
import difflib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import kubernetes_validate
import yaml
from schema import removed_options, renamed_options

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))

from free_ports import free_ports  # noqa: E402

ROOT = HERE.parent.parent
CHART = ROOT / "charts/jobgate"
TRIAL = ROOT / "config/trial"
TOOLS = ROOT / "target/tools"
OUT = ROOT / "target/chart"
HELMS = [TOOLS / "bin/helm3", TOOLS / "bin/helm4"]
# The lowest is Chart.yaml's kubeVersion.
KUBES = ["1.29", "1.37"]
CUSTOM = ("external-secrets.io/", "gateway.networking.k8s.io/", "monitoring.coreos.com/")

faults = []


def fault(what):
    faults.append(what)


def run(command, **more):
    return subprocess.run([str(one) for one in command], capture_output=True, text=True, check=False, **more)


def template(helm, *values, kube="1.37.0", release=("gateway", "jobs")):
    files = [part for one in values for part in ("--values", one)]
    return run([helm, "template", release[0], CHART, "--namespace", release[1], "--kube-version", kube, *files])


def compare(path, text, write):
    """Says whether a committed file is what it should be, or writes it."""
    if write:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return
    held = path.read_text(encoding="utf-8") if path.exists() else ""
    if held != text:
        name = path.relative_to(ROOT)
        lines = difflib.unified_diff(held.splitlines(), text.splitlines(), str(name), "what it should be", lineterm="", n=1)
        fault(f"{name} is out of date: bash tests/chart/write.sh\n" + "\n".join(list(lines)[:40]))


def written(jobgate, write):
    """The schema of the values and the README are made, and the version is said once."""
    options = run([jobgate, "config-schema"])
    schema = run([sys.executable, HERE / "schema.py"], input=options.stdout)
    if options.returncode or schema.returncode:
        fault(f"schema.py: {options.stderr}{schema.stderr}")
    else:
        compare(CHART / "values.schema.json", schema.stdout, write)
    readme = run([sys.executable, HERE / "readme.py", CHART])
    if readme.returncode:
        fault(readme.stderr)
    else:
        compare(CHART / "README.md", readme.stdout, write)
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(encoding="utf-8"), re.M)[1]
    if chart["appVersion"] != version:
        fault(f"Chart.yaml: appVersion is {chart['appVersion']}, Cargo.toml says {version}")
    if KUBES[0] not in chart["kubeVersion"]:
        fault(f"Chart.yaml: kubeVersion {chart['kubeVersion']} is not what is checked, {KUBES[0]}")


def trial(write):
    """The rules of the trial's Prometheus are the chart's, without those about what only a cluster knows."""
    text = (CHART / "files/alerts.yaml").read_text(encoding="utf-8")
    groups = yaml.safe_load(text.replace("RELEASE_NAMESPACE", "trial").replace("RELEASE_NAME", "jobgate"))["groups"]
    kept = [group for group in groups if "kube" not in json.dumps(group)]
    if len(kept) != len(groups) - 1:
        fault("alerts.yaml: the rules that need a cluster's metrics are to be one group")
    head = "# Made of charts/jobgate/files/alerts.yaml by tests/chart/write.sh, without the group that needs a cluster's metrics.\n"
    made = yaml.safe_dump({"groups": kept}, sort_keys=False, allow_unicode=True, width=1000)
    compare(TRIAL / "rules.yaml", head + made, write)


def undescribed(values, schema, path=""):
    """Values of values.yaml that the schema does not know, and properties of the schema that values.yaml does not show."""
    known = schema.get("properties")
    if not isinstance(values, dict) or known is None or path in (".config", ".podSecurityContext"):
        return
    for key in values.keys() - known.keys():
        fault(f"values.yaml{path}.{key}: is not in the schema")
    for key in known.keys() - values.keys() - {"global", "claims"}:
        fault(f"values.yaml{path}.{key}: is in the schema and not in values.yaml")
    for key in values.keys() & known.keys():
        undescribed(values[key], known[key], f"{path}.{key}")


def judge(case, objects, namespace):
    for found in objects:
        name = f"{case}: {found.get('kind')} {found.get('metadata', {}).get('name')}"
        if found["apiVersion"].startswith(CUSTOM):
            continue
        for kube in KUBES:
            try:
                kubernetes_validate.validate(found, kube, strict=True)
            except Exception as error:  # its own error classes share no base
                fault(f"{name} under {kube}: {error}")
        if found["kind"] == "Secret" or "creationTimestamp" in found["metadata"]:
            continue
        if found["metadata"].get("namespace") != namespace:
            fault(f"{name}: has no namespace")
        containers = found.get("spec", {}).get("template", {}).get("spec", {}).get("containers", [])
        for mount in (mount for one in containers for mount in one.get("volumeMounts", [])):
            if "subPath" in mount:
                fault(f"{name}: {mount['mountPath']} is mounted by subPath, and would never change")
        for file, text in found.get("data", {}).items() if found["kind"] == "ConfigMap" else []:
            if file.endswith(".json"):
                boards(name, json.loads(text))


def boards(name, board):
    """A dashboard that Grafana can show: a title, a name for its address, and panels that ask something."""
    asked = [target.get("expr") for panel in board["panels"] for target in panel.get("targets", [])]
    if not (board["title"] and board["uid"] and asked and all(asked)):
        fault(f"{name}: is no dashboard that asks for something")
    for one in board["templating"]["list"]:
        if one["type"] == "query" and not one["query"].startswith("label_values(jobgate_"):
            fault(f"{name}: the variable {one['name']} is empty where only the gateway is asked for metrics: {one['query']}")


def custom(objects):
    lines = "".join(json.dumps(one) + "\n" for one in objects if one["apiVersion"].startswith(CUSTOM))
    found = run(["node", HERE / "crds/check.mjs"], input=lines)
    if found.returncode:
        fault(found.stdout or found.stderr)


def missing(jobgate):
    """What the chart can write and this jobgate does not have: where it stands in a file, and what it looks like there."""
    schema = json.loads(run([jobgate, "config-schema"]).stdout)["properties"]
    lacking = {}
    for kind in ("embedded", "redis"):
        if f'"{kind}"' not in json.dumps(schema["store"]):
            lacking[f"store {kind}"] = ("store", None, f"kind: {kind}")
    if "exports none" in json.dumps(schema["telemetry"]):
        lacking["telemetry.otlp_endpoint"] = ("telemetry", "otlp_endpoint", r"\botlp_endpoint: http")
    if "tls" not in schema["server"]["properties"]:
        lacking["server.tls"] = ("server", "tls", r"\btls:")
    return lacking


def with_files(text, root):
    """The configuration with every absolute path moved below a folder in which its file is there."""
    tls = "s" if "ca_file: /" in text else ""

    def moved(match):
        file = root / match[2].strip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        if match[1].startswith("file"):
            known = {"store/url": f"redis{tls}://127.0.0.1:6379", "proxy": "user:not-a-secret"}
            what = next((what for end, what in known.items() if match[2].endswith(f"/{end}")), "not-a-secret-and-as-long-as-one-must-be")
            file.write_text(what, encoding="utf-8")
        elif not file.exists():
            out = file if match[1].startswith("ca_file") else file.with_name("tls.crt")
            pair = ["-keyout", file.with_name("tls.key"), "-out", out]
            run(["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=a.example", "-days", "1", *pair])
        return f"{match[1]}{file}"

    return re.sub(r"((?:\b(?:ca_)?file|cert|key)\b\W+)(/[\w./-]+)", moved, text)


def configured(case, objects, jobgate, lacking, env=None):
    """What the chart writes, jobgate takes."""
    for found in objects:
        text = found.get("data", {}).get("jobgate.yaml") if found["kind"] == "ConfigMap" else None
        if text is None:
            continue
        tree = yaml.safe_load(text)
        for what, (section, key, pattern) in lacking.items():
            if re.search(pattern, text):
                print(f"   {case}: shown to jobgate without {what}, which it does not have")
                tree[section].pop(key, None) if key else tree.pop(section)
        text = yaml.safe_dump(tree)
        text = with_files(text, OUT / f"files-{case}")
        path = OUT / f"{case}.config.yaml"
        path.write_text(text, encoding="utf-8")
        plain = {key: value for key, value in os.environ.items() if not key.startswith("JOBGATE_")}
        told = run([jobgate, "check", "--config", path], env=plain | (env or {}))
        if told.returncode:
            fault(f"{case}: jobgate refuses the configuration: {told.stdout}{told.stderr}")


def case(path, jobgate, lacking, write):
    name = path.stem
    # The release and the namespace of numbers.yaml are names that YAML takes for numbers, like all in it.
    release = ("12345", "2024") if name == "numbers" else ("gateway", "jobs")
    first, second = (template(helm, path, release=release) for helm in HELMS)
    if first.returncode or second.returncode:
        return fault(f"{name}: {first.stderr or second.stderr}") or []
    if yaml_of(first.stdout) != yaml_of(second.stdout):
        fault(f"{name}: the two Helms do not agree")
    compare(HERE / f"snapshots/{name}.yaml", first.stdout, write)
    notes = run([HELMS[1], "install", release[0], CHART, "--namespace", release[1], "--dry-run=client", "--values", path])
    said = notes.stdout.partition("\nNOTES:\n")[2]
    if not said:
        fault(f"{name}: no notes: {notes.stderr}")
    compare(HERE / f"snapshots/{name}.txt", said, write)
    objects = yaml_of(first.stdout)
    judge(name, objects, release[1])
    configured(name, objects, jobgate, lacking)
    (OUT / f"rendered/{name}.yaml").write_text(first.stdout, encoding="utf-8")
    return objects


def yaml_of(text):
    return [one for one in yaml.safe_load_all(text) if one]


def documented():
    """The values of the example in docs/kubernetes.md."""
    text = (ROOT / "docs/kubernetes.md").read_text(encoding="utf-8")
    return re.search(r"```yaml\n(# values\.yaml\n.*?)```", text, re.S)[1]


def fragments():
    """The other YAML blocks of docs/kubernetes.md that are values of the chart, each on top of the example's."""
    text = (ROOT / "docs/kubernetes.md").read_text(encoding="utf-8")
    known = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    found = []
    for match in re.finditer(r"```yaml\n(.*?)```", text, re.S):
        values = yaml.safe_load(match[1])
        if match[1] != documented() and set(values) <= set(known):
            line = text.count("\n", 0, match.start()) + 1
            path = OUT / f"fragment-{line}.yaml"
            path.write_text(match[1], encoding="utf-8")
            found.append((line, path))
    return found


def renamed():
    """Rows like those of refused.yaml for the options of jobgate that have a new name."""
    names = renamed_options()
    if not names:
        fault("src/config/renamed.rs: no old name was found")
    rows = []
    for old, new in names:
        section, key = old.split(".")
        says = f"config.{old}: is now config.{new}"
        rows.append({"name": f"the old name {old}", "values": {"config": {section: {key: "1s"}}}, "says": says})
    return rows


def removed():
    """Rows like those of refused.yaml for the options of jobgate that were removed."""
    options = removed_options()
    if not options:
        fault("src/config/removed.rs: no removed option was found")
    rows = []
    for option, instead in options:
        values = "1s"
        for step in reversed(option.replace("*", "audit").split(".")):
            values = {step: values} if not step.endswith("[]") else {step[:-2]: [values]}
        says = f"config.{option.replace('*', 'audit').replace('[]', '[0]')}: was removed, so delete it: {instead}"
        rows.append({"name": f"the removed option {option}", "values": {"config": values}, "says": says})
    return rows


def refused(number, row):
    laid = OUT / f"refused-{number}.yaml"
    laid.write_text(yaml.safe_dump(row["values"]), encoding="utf-8")
    under = [] if row.get("alone") else [HERE / "values/smallest.yaml"]
    told = template(HELMS[0], *under, laid, kube=row.get("kube", "1.37.0"))
    if told.returncode == 0:
        fault(f"refused: {row['name']}: was taken")
    elif row["says"] not in told.stderr:
        fault(f"refused: {row['name']}: does not say {row['says']!r}: {told.stderr}")
    if row.get("never") and row["never"] in told.stderr + told.stdout:
        fault(f"refused: {row['name']}: repeats a secret")


def commands(jobgate, objects):
    """The commands that the chart, the image and the trial give the binary are commands of it."""
    known = set(re.findall(r"^  ([a-z-]+) ", run([jobgate, "--help"]).stdout, re.M))
    given = set(re.findall(r'CMD \[(?:"/usr/bin/jobgate", )?"([a-z-]+)"', (ROOT / "Dockerfile").read_text(encoding="utf-8")))
    for found in objects:
        pod = found if found["kind"] == "Pod" else found.get("spec", {}).get("template", {})
        given |= {one["args"][0] for one in pod.get("spec", {}).get("containers", []) if "jobgate" in one["image"] and "args" in one}
    if not {"serve", "health"} <= given:
        fault(f"the commands were not found: {given}")
    for command in sorted(given - known):
        fault(f"jobgate has no command {command}, which the chart or the Dockerfile gives it")


def demo(jobgate, objects):
    """What the chart starts with demo.enabled is a gateway with live jobs that only loopback reaches, and no object leads there."""
    kinds = sorted(found["kind"] for found in objects if found["kind"] in ("Service", "Ingress", "StatefulSet", "Deployment"))
    if kinds != ["Deployment", "Service"] or [port["name"] for one in objects if one["kind"] == "Service" for port in one["spec"]["ports"]] != ["admin"]:
        fault(f"demo: makes {kinds}, not one Deployment and the Service of its admin listener")
    policy = next(one for one in objects if one["kind"] == "NetworkPolicy")
    if [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]] != ["admin"]:
        fault("demo: the network policy opens more than the admin listener")
    container = next(one for one in objects if one["kind"] == "Deployment")["spec"]["template"]["spec"]["containers"][0]
    env = {one["name"]: one["value"] for one in container["env"]}
    if env.get("JOBGATE_TELEMETRY__LOG_LEVEL") != "debug":
        fault("demo: config.telemetry.log_level does not reach the process")
    public, admin = free_ports(2)
    given = " ".join(container["args"]).replace("127.0.0.1:8080", f"127.0.0.1:{public}").replace("0.0.0.0:9090", f"0.0.0.0:{admin}")
    plain = {key: value for key, value in os.environ.items() if not key.startswith("JOBGATE_")}
    log = OUT / "demo.log"
    with open(log, "w", encoding="utf-8") as told:
        process = subprocess.Popen([str(jobgate), *given.split()], env=plain | env, stdout=told, stderr=told)
    try:
        if not until(lambda: fetched(f"http://127.0.0.1:{admin}/readyz")):
            return fault(f"demo: is not ready: {log.read_text(encoding='utf-8')[-2000:]}")
        if "<html" not in (fetched(f"http://127.0.0.1:{public}/") or ""):
            fault("demo: serves no page")
        query = urllib.parse.quote("{ jobList(first: 100) { edges { cursor } } }")
        asked = f"http://127.0.0.1:{public}/graphql?query={query}"
        if not until(lambda: len(json.loads(fetched(asked) or '{"data": {"jobList": {"edges": []}}}')["data"]["jobList"]["edges"]) >= 10):
            fault(f"demo: shows no jobs: {fetched(asked)}")
        with socket.socket() as probe:
            probe.settimeout(2)
            # every address of 127.0.0.0/8 is this machine, and only 127.0.0.1 is listened on
            if probe.connect_ex(("127.0.0.2", public)) == 0:
                fault("demo: the public listener is on more than 127.0.0.1")
    finally:
        process.terminate()
        process.wait(60)


def published():
    """The chart as the release workflow publishes it: it names the image and the documents of the owner, and says so nowhere else."""
    folder = OUT / "published"
    made = run(["bash", HERE / "publish.sh", "acme", "1.2.3", folder])
    if made.returncode:
        return fault(f"publish.sh: {made.stderr}")
    told = run([HELMS[0], "template", "gateway", folder, "--set", "demo.enabled=true", "--set", "metrics.dashboard.enabled=true"])
    if "image: \"ghcr.io/acme/jobgate:" not in told.stdout or "https://github.com/acme/jobgate/blob/v1.2.3/docs" not in told.stdout:
        fault(f"publish.sh: the chart does not name its own image and documents: {told.stderr}")
    for owner, version in (("Acme", "1.2.3"), ("acme", "v1"), ("a b", "1.2.3")):
        if run(["bash", HERE / "publish.sh", owner, version, OUT / "never"]).returncode == 0:
            fault(f"publish.sh: takes {owner} {version}")


def fetched(url):
    """The body of a successful answer, or none."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"accept": "*/*"}), timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return None


def until(condition, seconds=60):
    """Waits for a condition, at most this long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.2)
    return False


def live():
    """With configReload live what jobgate takes up by itself replaces no pod, and all else does; with restart everything does. The
    configuration is mounted as a folder, which alone follows a change."""

    def checksum(reload, config):
        laid = OUT / "live.yaml"
        laid.write_text(yaml.safe_dump({"configReload": reload, "config": config}), encoding="utf-8")
        found = re.search(r"checksum/config: (\w+)", template(HELMS[0], HERE / "values/smallest.yaml", laid).stdout)
        return found and found[1]

    level = {"telemetry": {"log_level": "debug"}}
    taken_up = [
        level,
        {"server": {"trusted_proxies": ["10.0.0.0/8"], "allowed_origins": ["https://a.example"]}},
        {"cache": {"fresh_for": "3s"}},
        {"limits": {"burst": 7}},
        {"streams": {"max_age": "2h"}},
        {"poll": {"min_interval": "2s"}},
        {"sources": {"audit": {"base_url": "https://other.example/api", "budget": {"per_second": 1}}}},
        {"sources": {"audit": {"proxy": "http://proxy.example:3128"}}},
        {"poll": {"verify_interval": "20m"}},
    ]
    replacing = [{"server": {"max_requests": 7}}, {"cache": {"max_bytes": "1MiB"}}, {"telemetry": {"log_format": "text"}}]
    # Refused by every pod that runs: without a new one the change would never come.
    replacing += [{"sources": {"audit": {"upstream": "supermetrics"}}}]
    cases = [("live", config, True) for config in taken_up]
    cases += [("live", config, False) for config in replacing] + [("restart", level, False)]
    before = {reload: checksum(reload, {}) for reload in ("live", "restart")}
    for reload, config, same in cases:
        if (checksum(reload, config) == before[reload]) != same:
            fault(f"configReload {reload}: {config} {'replaces' if same else 'does not replace'} the pods")


def names():
    """Rules and dashboard tell the pods and the volumes of a release from those of a neighbour whose name begins alike."""
    own = ["0", "12", "7d9f8c6b5-x7k2p", "5d59d67564-bq9wz"]
    # a Deployment of the longest name: Kubernetes cuts what it makes names of to 58 letters
    own += ["7d9f8x7k2p", "7d9f8c6b5x7k2p"]
    foreign = ["eu-0", "redis-master-0", "eu-7d9f8c6b5-x7k2p", "redis-x7k2p", "redis-master-x7k2p", "test", "exporter", "28934820-eu"]
    for file in ("alerts.yaml", "dashboard.json"):
        text = (CHART / "files" / file).read_text(encoding="utf-8").replace('\\"', '"')
        text = text.replace("$release", "jobgate").replace("RELEASE_NAME", "jobgate")
        for label, lead, some in (("pod", "", own), ("persistentvolumeclaim", "data-", own[:2])):
            asked = re.findall(rf'\b{label}=~?"([^"]*)"', text)
            if not asked:
                fault(f"{file}: nothing is asked by {label}")
            for pattern in sorted(set(asked)):
                for name in some:
                    if not re.fullmatch(pattern, f"{lead}jobgate-{name}"):
                        fault(f"{file}: {label} {pattern} leaves out {lead}jobgate-{name}")
                for name in foreign:
                    if re.fullmatch(pattern, f"{lead}jobgate-{name}"):
                        fault(f"{file}: {label} {pattern} takes {lead}jobgate-{name} for ours")


def inline_redis():
    """The URL of Redis in the values opens the way to its ports, and replaces the pods when it changes."""

    def shown(url, more):
        laid = OUT / "redis.yaml"
        values = {"store": {"kind": "redis", "redis": {"inline": url}}, **more}
        laid.write_text(yaml.safe_dump(values), encoding="utf-8")
        told = template(HELMS[0], HERE / "values/smallest.yaml", laid)
        by_kind = {one["kind"]: one for one in yaml_of(told.stdout)}
        if told.returncode:
            return fault(f"store.redis.inline {url}: {told.stderr}") or (None, None)
        # The first rule is for names, the second for upstreams.
        ports = [one["port"] for one in by_kind["NetworkPolicy"]["spec"]["egress"][2]["ports"]]
        return ports, by_kind["Deployment"]["spec"]["template"]["metadata"]["annotations"].get("checksum/store")

    sentinel = {"config": {"store": {"redis": {"mode": "sentinel", "sentinel_name": "jobs"}}}}
    named = {"networkPolicy": {"egress": {"redis": {"ports": [7000]}}}}
    cases = [
        ("redis://a.example", {}, [6379]),
        ("rediss://u:p%40:1/@a.example:6380/0?x=y:9", {}, [6380]),
        ("redis://[::1]", {}, [6379]),
        ("redis://[::1]:6381, redis://b.example:6382", {}, [6381, 6382]),
        ("redis://a.example:26379,redis://b.example:26379", sentinel, [26379, 6379]),
        ("redis://a.example:6380", named, [7000]),
    ]
    seen = set()
    for url, more, ports in cases:
        open_to, checksum = shown(url, more)
        if open_to != ports:
            fault(f"store.redis.inline {url}: the network policy opens {open_to}, not {ports}")
        seen.add(checksum)
    if None in seen or len(seen) != len(cases):
        fault("store.redis.inline: another URL does not replace the pods")


def parent(write):
    """As a dependency: a parent chart with the condition jobgate.enabled makes all of it or nothing, its registry and its Secrets for
    the registry hold for every pod, and what it says for its other charts is none of ours."""
    folder = OUT / "parent"
    shutil.copytree(HERE / "parent", folder)
    shutil.copytree(CHART, folder / "charts/jobgate")
    rendered = {}
    for helm in HELMS:
        for enabled in ("true", "false"):
            told = run([helm, "template", "gateway", folder, "--namespace", "jobs", "--set", f"jobgate.enabled={enabled}"])
            if told.returncode:
                return fault(f"parent, enabled {enabled}: {helm.name}: {told.stderr}")
            rendered[helm.name, enabled] = told.stdout
        told = run([helm, "lint", "--strict", folder])
        if told.returncode:
            fault(f"parent: {helm.name} lint: {told.stdout}{told.stderr}")
    for enabled in ("true", "false"):
        first, second = (yaml_of(rendered[helm.name, enabled]) for helm in HELMS)
        if first != second:
            fault(f"parent, enabled {enabled}: the two Helms do not agree")
    kinds = sorted(one["kind"] for one in yaml_of(rendered["helm3", "false"]))
    if kinds != ["ConfigMap"]:
        fault(f"parent, enabled false: makes {kinds}, not its own ConfigMap alone")
    objects = yaml_of(rendered["helm3", "true"])
    judge("parent", objects, "jobs")
    pods = [one for one in objects if one["kind"] in ("StatefulSet", "Pod")]
    for one in pods:
        spec = one["spec"]["template"]["spec"] if one["kind"] == "StatefulSet" else one["spec"]
        images = {container["image"].rpartition(":")[0] for container in spec["containers"]}
        if images != {"registry.example:5000/mirror/jobgate"} or spec.get("imagePullSecrets") != [{"name": "own"}, {"name": "mirror"}]:
            fault(f"parent: {one['kind']}: {images} {spec.get('imagePullSecrets')}")
    if len(pods) != 2:
        fault(f"parent, enabled true: makes {len(pods)} pods")
    compare(HERE / "snapshots/parent.yaml", rendered["helm3", "true"], write)


def proxies():
    """The network policy opens the way to the proxy that a source or a variable names, and to an upstream only where it is called without."""

    def ports(values):
        laid = OUT / "proxies.yaml"
        laid.write_text(yaml.safe_dump(values), encoding="utf-8")
        told = template(HELMS[0], HERE / "values/smallest.yaml", laid)
        if told.returncode:
            return fault(f"proxies {values}: {told.stderr}")
        policy = next(one for one in yaml_of(told.stdout) if one["kind"] == "NetworkPolicy")
        # The first rule is for names.
        return [[one["port"] for one in rule["ports"]] for rule in policy["spec"]["egress"][1:]]

    def source(proxy):
        return {"config": {"sources": {"audit": {"proxy": proxy}}}}

    def variable(name, value):
        return {"extraEnv": [{"name": name, "value": value}]}

    named = {"networkPolicy": {"egress": {"proxy": {"ports": [3129]}}}}
    cases = [
        ({}, [[443]]),
        (source("none"), [[443]]),
        (source("http://proxy.example:3128"), [[3128]]),
        (source("http://proxy.example"), [[80]]),
        (source("https://proxy.example/"), [[443]]),
        (source("http://proxy.example:3128") | named, [[3129]]),
        (variable("HTTPS_PROXY", "http://u:p%40:1@proxy.example:3128/"), [[443], [3128]]),
        (variable("https_proxy", "proxy.example:8080"), [[443], [8080]]),
        (variable("NO_PROXY", "a.example:8080"), [[443]]),
        ({"envFrom": [{"secretRef": {"name": "proxies"}}]} | named, [[443], [3129]]),
    ]
    for values, expected in cases:
        opened = ports(values)
        if opened != expected:
            fault(f"proxies {values}: the network policy opens {opened}, not {expected}")


def redis_host():
    """A host of Redis and a password that stands apart make what jobgate takes: a URL without the password, and a file of its own."""
    laid = OUT / "redis-host.yaml"
    for more, url, port in [
        ({}, "redis://redis.example:6379", 6379),
        ({"tls": True, "port": 6380, "username": "jobgate"}, "rediss://jobgate@redis.example:6380", 6380),
    ]:
        redis = {"host": "redis.example", "passwordSecret": {"name": "redis", "key": "password"}} | more
        laid.write_text(yaml.safe_dump({"store": {"kind": "redis", "redis": redis}}), encoding="utf-8")
        told = template(HELMS[0], HERE / "values/smallest.yaml", laid)
        by_kind = {one["kind"]: one for one in yaml_of(told.stdout)}
        if told.returncode:
            fault(f"redis host: {told.stderr}")
            continue
        made = base64.b64decode(by_kind["Secret"]["data"]["store.url"]).decode()
        opened = by_kind["NetworkPolicy"]["spec"]["egress"][2]["ports"][0]["port"]
        if (made, opened) != (url, port):
            fault(f"redis host: makes {made} on {opened}, not {url}")


def nulls(schema):
    """Whatever the schema lets go may be taken back with null: nothing falls over the gap, and it is still Kubernetes'. A plain number
    of bytes is a size."""

    def taken(node, given):
        for key, below in node["properties"].items():
            if key in node.get("required", []):
                if below.get("properties") and key not in ("config", "podSecurityContext"):
                    yield key, dict(taken(below, given.get(key) or {}))
            elif key not in given and key != "global":
                yield key, None

    tree = {"config": dict.fromkeys(["server", "streams", "telemetry"])}
    sized = {"resources": {"limits": {"memory": 1073741824}}}
    for name in ("autoscaled", "numbers", "trial"):
        base = HERE / f"values/{name}.yaml"
        given = yaml.safe_load(base.read_text(encoding="utf-8"))
        laid = OUT / f"nulls-{name}.yaml"
        for more in ({}, sized):
            whole = dict(taken(schema, given | more)) | tree | more
            if name == "trial":
                whole["store"] |= {"kind": "redis", "redis": {"existingSecret": None, "inline": "redis://a.example"}}
            laid.write_text(yaml.safe_dump(whole), encoding="utf-8")
            for helm in HELMS:
                told = template(helm, base, laid)
                if told.returncode:
                    fault(f"{laid.name}: {helm.name}: {told.stderr}")
                else:
                    judge(laid.name, yaml_of(told.stdout), "jobs")


def lint():
    for helm in HELMS:
        for path in [None, *sorted((HERE / "values").glob("*.yaml"))]:
            told = run([helm, "lint", "--strict", CHART, *(["--values", path] if path else [])])
            if told.returncode:
                fault(f"{helm.name} lint {path and path.name}: {told.stdout}{told.stderr}")


def policies():
    """Checkov over what was rendered and over the Dockerfile."""
    allowed = yaml.safe_load((HERE / "exceptions.yaml").read_text(encoding="utf-8"))
    used = set()
    told = run(
        [TOOLS / "py/bin/checkov", "--config-file", HERE / "checkov.yaml", "--output", "json"]
        + ["--directory", OUT / "rendered", "--file", ROOT / "Dockerfile"],
        cwd=OUT,
    )
    try:
        reports = json.loads(told.stdout)
    except json.JSONDecodeError:
        return fault(f"checkov: {told.stdout[-2000:]}{told.stderr[-2000:]}")
    passed = 0
    for report in reports if isinstance(reports, list) else [reports]:
        passed += report["summary"]["passed"]
        for one in report["results"]["failed_checks"]:
            match = [
                number
                for number, other in enumerate(allowed)
                if other["check"] == one["check_id"] and re.fullmatch(other["resource"], one["resource"])
            ]
            used.update(match)
            if match:
                continue
            fault(f"checkov {one['check_id']} {one['check_name']}: {one['file_path']} {one['resource']}")
        if report["summary"]["parsing_errors"]:
            fault(f"checkov: cannot read {report['results']['parsing_errors']}")
    for number, other in enumerate(allowed):
        if number not in used:
            fault(f"exceptions.yaml: {other['check']} {other['resource']}: occurs no more: remove it")
    if passed < 100:
        fault(f"checkov: only {passed} checks passed: it did not look")
    print(f"   checkov: {passed} checks passed")


def image():
    told = run([TOOLS / "py/bin/hadolint", "--failure-threshold", "info", ROOT / "Dockerfile"])
    if told.returncode:
        fault(f"hadolint: {told.stdout}{told.stderr}")
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    toolchain = re.search(r'^channel = "(.+)"', (ROOT / "rust-toolchain.toml").read_text(encoding="utf-8"), re.M)[1]
    if f"ARG RUST_VERSION={toolchain}\n" not in text:
        fault(f"Dockerfile: RUST_VERSION is not {toolchain}, as rust-toolchain.toml says")


def compose():
    from compose_viz.spec.compose_spec import ComposeSpecification

    tree = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    try:
        ComposeSpecification.model_validate(tree)
    except ValueError as error:
        fault(f"compose.yaml: {error}")
    services = tree["services"]
    for name, service in services.items():
        for other in service.get("depends_on", {}):
            if other not in services:
                fault(f"compose.yaml: {name} depends on {other}, which is not there")
        for one in service.get("configs", []):
            held = tree["configs"].get(one["source"])
            if held is None:
                fault(f"compose.yaml: {name} uses the configuration {one['source']}, which is not there")
            elif service.get("read_only") and "file" not in held:
                fault(f"compose.yaml: {name} is read-only, and Compose writes {one['source']}, which is no file, into the container")
        image_name = service.get("image", "")
        if ":" not in image_name or image_name.endswith(":latest"):
            fault(f"compose.yaml: {name} names no version of its image")
    for name, one in tree["configs"].items():
        if "file" in one and not (ROOT / one["file"]).exists():
            fault(f"compose.yaml: configs.{name}: {one['file']} is not there")
    told = shutil.which("promtool") and run(["promtool", "check", "config", TRIAL / "prometheus.yaml"])
    if told and told.returncode:
        fault(f"{TRIAL / 'prometheus.yaml'}: {told.stdout}{told.stderr}")
    mounted(tree)
    return tree


def mounted(tree):
    """What the trial's Prometheus loads and says of the gateway: the rules, and the labels that rules and dashboard ask for."""
    config = yaml.safe_load((TRIAL / "prometheus.yaml").read_text(encoding="utf-8"))
    there = {pathlib.PurePath(one["target"]).name: one["source"] for one in tree["services"]["prometheus"]["configs"]}
    for file in config["rule_files"]:
        if tree["configs"].get(there.get(file)) != {"file": f"config/trial/{file}"}:
            fault(f"compose.yaml: prometheus has no {file}, which its configuration loads")
    board = json.loads((CHART / "files/dashboard.json").read_text(encoding="utf-8"))
    release = next(one["query"] for one in board["templating"]["list"] if one["name"] == "release")
    for one in (one for job in config["scrape_configs"] for one in job["static_configs"]):
        if one.get("labels") != {"namespace": "trial", "pod": f"{release}-0"}:
            fault("config/trial/prometheus.yaml: the dashboard and the rules do not find the gateway by these labels")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--write", action="store_true")
    write = arguments.parse_args().write
    jobgate = pathlib.Path(os.environ.get("JOBGATE", ROOT / "target/debug/jobgate"))
    if not jobgate.exists():
        sys.exit(f"{jobgate} is not there: cargo build, or name another in the variable JOBGATE")
    shutil.rmtree(OUT, ignore_errors=True)
    (OUT / "rendered").mkdir(parents=True)

    written(jobgate, write)
    trial(write)
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    undescribed(yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8")), schema)
    lacking = missing(jobgate)
    paths = sorted((HERE / "values").glob("*.yaml"))
    (OUT / "documented.yaml").write_text(documented(), encoding="utf-8")
    rows = yaml.safe_load((HERE / "refused.yaml").read_text(encoding="utf-8")) + renamed() + removed()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        objects = [one for found in pool.map(lambda path: case(path, jobgate, lacking, write), paths) for one in found]
        list(pool.map(lambda pair: refused(*pair), enumerate(rows)))
    print(f"   {len(paths)} sets of values rendered, {len(objects)} objects, {len(rows)} contradictions tried")
    parent(write)
    if not write:
        live()
        proxies()
        redis_host()
        names()
        inline_redis()
        nulls(schema)
        for helm in HELMS:
            told = run([helm, "lint", "--strict", CHART, "--values", OUT / "documented.yaml"])
            shown = template(helm, OUT / "documented.yaml")
            if told.returncode or shown.returncode:
                fault(f"docs/kubernetes.md: {helm.name}: {told.stdout}{shown.stderr}")
        shown = fragments()
        if len(shown) < 5:
            fault(f"docs/kubernetes.md: {len(shown)} blocks are values of the chart")
        for line, path in shown:
            rendered = template(HELMS[0], OUT / "documented.yaml", path)
            if rendered.returncode:
                fault(f"docs/kubernetes.md:{line}: {rendered.stderr}")
        custom(objects)
        commands(jobgate, objects)
        published()
        demo(jobgate, yaml_of((OUT / "rendered/demo.yaml").read_text(encoding="utf-8")))
        lint()
        image()
        tree = compose()
        config = yaml.safe_load((ROOT / tree["configs"]["gateway"]["file"]).read_text(encoding="utf-8"))
        env = tree["services"]["gateway"]["environment"]
        configured("compose", [{"kind": "ConfigMap", "data": {"jobgate.yaml": json.dumps(config)}}], jobgate, lacking, env)
        policies()
    if faults:
        print("\n".join(faults), file=sys.stderr)
        sys.exit(f"{len(faults)} faults")


main()
