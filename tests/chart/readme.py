"""Makes charts/jobgate/README.md from the comments of values.yaml. A value without a comment is a fault."""

import json
import re
import sys

import yaml

HEAD = """# Helm chart of jobgate

<!-- Generated from values.yaml by `bash tests/chart/write.sh`: edit values.yaml. -->

Installs [jobgate](../../README.md) with Helm 3.14 or later, or Helm 4, on Kubernetes {kube}. [docs/kubernetes.md](../../docs/kubernetes.md) has
a complete example, [docs/operations.md](../../docs/operations.md) describes operations.

    helm install jobgate charts/jobgate --namespace jobgate --create-namespace --values my-values.yaml

The smallest useful values:

```yaml
{example}```

Helm refuses contradicting values with a message that says what to change. It validates the options under `config` against
jobgate's JSON Schema.

## Values

| Value | Default | Meaning |
|---|---|---|
"""


def described(lines):
    """Yields (path, comment, default or None) for every key of the file that has a comment."""
    path, comment = [], []
    for number, line in enumerate(lines, 1):
        bare = line.strip()
        if bare.startswith("#"):
            if bare.startswith("# --"):
                comment = []
            comment.append(bare.lstrip("#").strip().removeprefix("--").strip())
            continue
        match = re.match(r"^( *)([A-Za-z][\w.-]*):(.*)$", line)
        if match:
            depth = len(match[1]) // 2
            path[depth:] = [match[2]]
            yield tuple(path[: depth + 1]), comment, number
        comment = []


def main():
    folder = sys.argv[1]
    with open(f"{folder}/values.yaml", encoding="utf-8") as file:
        source = file.read()
    with open(f"{folder}/Chart.yaml", encoding="utf-8") as file:
        kube = yaml.safe_load(file)["kubeVersion"].removesuffix("-0").replace(">=", "") + " or later"
    with open(f"{folder}/../../tests/chart/values/smallest.yaml", encoding="utf-8") as file:
        example = "".join(line for line in file if not line.startswith("#"))
    tree = yaml.safe_load(source)
    rows, faults, done = [], [], set()
    for path, comment, number in described(source.splitlines()):
        if any(path[: len(one)] == one for one in done):
            continue
        value = tree
        for key in path:
            value = value[key]
        if not comment:
            if isinstance(value, dict) and value:
                continue
            faults.append(f"values.yaml:{number}: {'.'.join(path)} has no comment")
        shown = None
        words = []
        for line in comment:
            if line.startswith("@default --"):
                shown = line.removeprefix("@default --").strip()
            else:
                words.append(line)
        deep = isinstance(value, dict) and value and path[0] not in ("podSecurityContext",) and path[-1] != "labels"
        if deep and shown is None:
            faults.append(f"values.yaml:{number}: {'.'.join(path)} is a group: give @default")
        if shown is None:
            shown = f"`{json.dumps(value, ensure_ascii=False)}`"
        meaning = " ".join(words).replace("|", "\\|")
        rows.append(f"| `{'.'.join(path)}` | {shown} | {meaning} |")
        if not deep:
            done.add(path)
    if faults:
        sys.exit("\n".join(faults))
    print(HEAD.format(kube=kube, example=example) + "\n".join(rows))


main()
