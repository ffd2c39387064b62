#!/usr/bin/env bash
# host.sh look FILE: writes down what builds must leave as it is on this machine, and starts an
#                    ssh-agent with one key, to which SSH_AUTH_SOCK in FILE.env then leads.
# host.sh compare FILE: fails, and says what differs, if that is no longer so; ends the agent.
#
# Looked at are nodes of /dev, the files that a container hides or shares in /proc (as one that is
# mounted now has them), mounts, and processes of rbuild and its tests. What else runs on the machine
# does not count.
set -euo pipefail

# Modes, owners and times. Terminals are written to by their users, so of tty only the first two.
nodes() {
    stat -c '%n %t:%T %a %u:%g %Y %Z' /dev/null /dev/zero /dev/full /dev/random /dev/urandom
    stat -c '%n %t:%T %a %u:%g' /dev/tty /dev/ptmx
}

# Of a /proc in a process namespace of its own: one that is mounted for long has old modes.
process_files() {
    # shellcheck disable=SC2016
    unshare --fork --pid --mount-proc sh -c '
        find /proc -mindepth 1 -regex "/proc/[0-9]+" -prune -o -path "/proc/sys/*" -prune -o \
            -type l -prune -o -printf "%p %m %U:%G\n"
        find /proc/self/net/ -type f -printf "/proc/net/%P %m %U:%G\n"' |
        grep -vE '^/proc/(irq|fs|scsi|tty|bus)/' | sort
}

# Without the numbers of mounts, which differ each time they are made, and without those that podman
# makes for its own storage and leaves.
mounts() {
    grep -vE ' (/var/lib|/run)/(containers|netns|user)/| /run/netns ' /proc/self/mounts | sort
}

# Of rbuild, its containers, and the agents that tests start.
processes() {
    for process in /proc/[0-9]*; do
        program=$(readlink "$process/exe" 2>/dev/null) || continue
        words=$(tr '\0' ' ' < "$process/cmdline" 2>/dev/null) || continue
        case "$program $words" in
            */rbuild\ *|*/rbuild\ \(deleted\)*|*\ rbuild-init\ *|*/tmp/rbuild-test-*)
                # The name alone: numbers are never the same twice.
                printf '%s\n' "$program" ;;
        esac
    done | sort | uniq -c
}

agent() {
    SSH_AUTH_SOCK=$1 ssh-add -l 2>&1
}

all() {
    echo '== nodes of /dev'; nodes
    echo '== files of /proc'; process_files
    echo '== mounts'; mounts
    echo '== processes'; processes
    echo '== the agent'; agent "$1"
}

file=$2
case $1 in
    look)
        directory=$(mktemp -d)
        eval "$(ssh-agent -s -a "$directory/agent")" > /dev/null
        ssh-keygen -q -t ed25519 -N '' -C host -f "$directory/key"
        SSH_AUTH_SOCK=$directory/agent ssh-add -q "$directory/key"
        printf 'SSH_AUTH_SOCK=%s\nagent=%s\ndirectory=%s\n' \
            "$directory/agent" "$SSH_AGENT_PID" "$directory" > "$file.env"
        all "$directory/agent" > "$file"
        ;;
    compare)
        # shellcheck disable=SC1090
        . "$file.env"
        trap 'kill "$agent"; rm -rf "$directory" "$file.env"' EXIT
        # What was told to end may take a moment.
        for _ in 1 2 3 4 5; do
            all "$SSH_AUTH_SOCK" | diff "$file" - > "$file.differs" && { rm -f "$file.differs"; exit 0; }
            sleep 1
        done
        cat "$file.differs"
        rm -f "$file.differs"
        exit 1
        ;;
esac
