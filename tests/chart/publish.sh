#!/usr/bin/env bash
# Copies the chart to a folder as it is published: with the image of an owner's packages as its default, and links to the documents of
# the version. The release workflow packages the copy; check.py makes and renders one.
#
#   bash tests/chart/publish.sh OWNER VERSION FOLDER
set -euo pipefail
owner="${1:?the owner of the packages}" version="${2:?the version}" folder="${3:?the folder to make}"
chart="$(cd "$(dirname "$0")/../../charts/jobgate" && pwd)"
[[ "$owner" =~ ^[a-z0-9]([a-z0-9-]*[a-z0-9])?$ ]] || { echo "no name of an owner in small letters: $owner" >&2; exit 1; }
[[ "$version" =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]] || { echo "no version: $version" >&2; exit 1; }
[ ! -e "$folder" ] || { echo "is there already: $folder" >&2; exit 1; }

cp -r "$chart" "$folder"
sed -i "s|^  repository: jobgate\$|  repository: ghcr.io/$owner/jobgate|" "$folder/values.yaml"
sed -i "s|github\.com/OWNER/jobgate/blob/main|github.com/$owner/jobgate/blob/v$version|g" "$folder/files/dashboard.json" \
  "$folder/templates/dashboard.yaml"
grep -q "ghcr.io/$owner/jobgate" "$folder/values.yaml"
grep -q "github.com/$owner/jobgate/blob/v$version/docs" "$folder/files/dashboard.json"
! grep -rq OWNER "$folder/values.yaml" "$folder/files" "$folder/templates" || { echo "OWNER is left over in $folder" >&2; exit 1; }
