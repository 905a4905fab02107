#!/usr/bin/env bash
# The shape of the sources: each room says what it is for; long files are named (a warning: they are allowed to be the
# exception). One line `ok - ...` or `not ok - ...` per check.
set -u
cd "$(dirname "$0")/.."
LINES_MAX=600
failed=0
report() {
    if [ "$1" = 0 ]; then echo "ok - $2"; else echo "not ok - $2"; failed=1; fi
}

for room in src/*/; do
    compgen -G "$room*.c" >/dev/null || continue
    [ -s "${room}README.md" ]
    report $? "${room}README.md"
done

long=$(find src include python -name '*.[ch]' -o -name '*.py' | xargs -r wc -l | awk -v max=$LINES_MAX '$2 != "total" && $1 > max { print "  warning: " $2 " has " $1 " lines" }')
[ -z "$long" ] || echo "$long"

for file in README.md CHANGELOG.md LICENSE docs/architecture.md docs/wire-format.md docs/cryptography.md docs/threat-model.md docs/operations.md docs/reliability.md deploy/README.md \
            docs/dependencies.md; do
    [ -s "$file" ]
    report $? "$file"
done

# Links between documents lead somewhere.
broken=$(python3 - <<'PY'
import pathlib, re
for page in [pathlib.Path("README.md"), *pathlib.Path("docs").glob("*.md"), *pathlib.Path("src").glob("*/README.md")]:
    if page.is_file():
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not target.startswith("mailto:") and not (page.parent / target).exists():
                print(f"  {page}: {target}")
PY
)
[ -z "$broken" ] || echo "$broken"
[ -z "$broken" ]
report $? "links between documents"
exit $failed
