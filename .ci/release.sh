#!/usr/bin/env bash
# Build the sdist and the wheel into dist/, check them, install each in a fresh environment and try it.
# Nothing is uploaded. Needs python3 with venv.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
unset PYTHONPATH  # What is tried is what was installed.
export TF_CPP_MIN_LOG_LEVEL=3 PIP_DISABLE_PIP_VERSION_CHECK=1

version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' kvis2/version.py)
grep -q "^version: $version$" CITATION.cff ||
    { echo "Expected version $version in CITATION.cff, as in kvis2/version.py. Mend one."; exit 1; }
grep -q "^## \[$version\]" CHANGELOG.md ||
    { echo "Expected a section [$version] in CHANGELOG.md. Rename [Unreleased]."; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet build twine
rm -rf dist
# The wheel is built from the sdist, as pip does for its users.
"$work/tools/bin/python" -m build --outdir dist . >"$work/build.log" || { cat "$work/build.log"; exit 1; }
"$work/tools/bin/twine" check --strict dist/*

for file in dist/kvis2-"$version".tar.gz dist/kvis2-"$version"-py3-none-any.whl; do
    rm -rf "$work/user"
    python3 -m venv "$work/user"
    "$work/user/bin/pip" install --quiet "$file"
    echo "$file"
    (cd "$work" && "$work/user/bin/python" "$OLDPWD/.ci/smoke_test.py")
done
