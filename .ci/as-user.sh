#!/usr/bin/env bash
# as-user.sh COMMAND…: runs it as an ordinary user with subordinate ids, to whom the current directory
# belongs and who may read all that is in it. The user is there in a mount namespace alone, which
# ends with the command. Needs root.
set -euo pipefail

id=4242
etc=$(mktemp -d)
trap 'rm -rf "$etc"' EXIT
printf 'root:x:0:0::/root:/bin/sh\ntester:x:%s:%s::/:/bin/sh\n' $id $id > "$etc/passwd"
printf 'root:x:0:\ntester:x:%s:\n' $id > "$etc/group"
printf 'tester:2000000:65536\n' | tee "$etc/subuid" > "$etc/subgid"
chown $id .
# Owners of a context don't count, but a chown costs a file its set-user-id bit.
find . ! -perm -o=r ! -perm /6000 -exec chown -h $id {} +
find . -type d ! -perm -o=rx -exec chown $id {} +
# shellcheck disable=SC2016
unshare --mount sh -euc '
    etc=$1 id=$2
    shift 2
    for file in passwd group subuid subgid; do mount --bind "$etc/$file" "/etc/$file"; done
    exec setpriv --reuid "$id" --regid "$id" --clear-groups env HOME=/ "$@"
' sh "$etc" $id "$@"
