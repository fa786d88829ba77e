#!/bin/bash
# Plays inside a booted Debian: an operator installs both packages, configures, runs and removes them.
set -euo pipefail

step() { echo "== $*"; }
fail() {
    echo "FAILED: $*"
    systemctl status --no-pager --lines=30 mrgc-agent mrgc-router || true
    exit 1
}
trap 'fail "line $LINENO"' ERR
shown() { systemctl show --value --property="$2" "$1"; }
is() { [ "$(shown "$1" "$2")" = "$3" ] || fail "$1: $2 is '$(shown "$1" "$2")', not '$3'"; }
# Waits until a command succeeds: within SECONDS COMMAND...
within() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || fail "not in time: $*"
        sleep 0.1
    done
}
get() {
    exec 3<>"/dev/tcp/127.0.0.1/$1"
    printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$2" >&3
    cat <&3
    exec 3>&-
}
says() { get "$1" "$2" 2>/dev/null | grep -q -- "$3"; }

step "install: neither enabled nor started"
dpkg --install /packages/mrgc-agent.deb /packages/mrgc-router.deb
for service in mrgc-agent mrgc-router; do
    [ "$(systemctl is-enabled $service)" = disabled ] || fail "$service is enabled"
    is $service ActiveState inactive
done

step "configure: the router keeps the state, the agent reports to it"
cat > /etc/mrgc/router.env <<END
MRGC_ROUTER__ROLES=proxy,state
MRGC_ROUTER__STORE__ENDPOINT=http://127.0.0.1:8100
END
cat > /etc/mrgc/agent.env <<END
MRGC_AGENT__INSTANCE__ID=packaged
MRGC_AGENT__INSTANCE__REGION=us-east-1
MRGC_AGENT__INSTANCE__ADDRESS=127.0.0.1:8001
MRGC_AGENT__STORE__ENDPOINT=http://127.0.0.1:8100
MRGC_AGENT__DRAIN__UNKNOWN_GRACE_SECONDS=4
MRGC_AGENT__DRAIN__SETTLE_SECONDS=0
END
chmod 600 /etc/mrgc/*.env
for service in mrgc-agent mrgc-router; do
    mkdir -p /etc/systemd/system/$service.service.d
    printf '[Service]\nWatchdogSec=2s\nTimeoutStopSec=3s\n' > /etc/systemd/system/$service.service.d/quick.conf
done
systemctl daemon-reload

step "start: systemd waits for READY=1"
systemctl enable --now mrgc-router
systemctl enable --now mrgc-agent
for service in mrgc-agent mrgc-router; do
    is $service ActiveState active
    is $service SubState running
done
within 20 says 9000 /instances '"packaged"'
says 8080 /health '"status"' || fail "the agent serves no /health"

step "sandbox: users, capabilities, bounds"
pid=$(shown mrgc-agent MainPID)
[ "$(stat --format=%U "/proc/$pid")" = mrgc-agent ] || fail "the agent runs as somebody else"
grep -q '^CapEff:[[:space:]]*0000000400000000$' "/proc/$pid/status" || fail "the agent's capabilities are not CAP_SYSLOG alone"
grep -q '^NoNewPrivs:[[:space:]]*1$' "/proc/$pid/status" || fail "the agent may gain privileges"
pid=$(shown mrgc-router MainPID)
grep -q '^CapEff:[[:space:]]*0000000000000000$' "/proc/$pid/status" || fail "the router has capabilities"
[ "$(stat --format='%U %a' /var/lib/mrgc-router)" = "mrgc-router 750" ] || fail "/var/lib/mrgc-router is open"
[ -s /var/lib/mrgc-router/mrgc-state.sqlite ] || fail "the state is not in /var/lib/mrgc-router"
[ "$(stat --format='%U %a' /var/log/mrgc-agent)" = "mrgc-agent 750" ] || fail "/var/log/mrgc-agent is open"

step "reload: an error is refused, and the agent goes on"
pid=$(shown mrgc-agent MainPID)
systemctl reload mrgc-agent
cp /etc/mrgc/agent.toml /saved.toml
echo 'nonsense = true' >> /etc/mrgc/agent.toml
if systemctl reload mrgc-agent; then fail "a configuration with an error was reloaded"; fi
cp /saved.toml /etc/mrgc/agent.toml
is mrgc-agent ActiveState active
is mrgc-agent MainPID "$pid"

step "watchdog: what hangs is restarted"
for service in mrgc-agent mrgc-router; do
    pid=$(shown $service MainPID)
    kill -STOP "$pid"
    changed() { [ "$(shown "$service" NRestarts)" -ge 1 ] && [ "$(shown "$service" ActiveState)" = active ]; }
    within 30 changed
done
within 20 says 9000 /instances '"packaged"'

step "stop: a drain that takes longer than TimeoutStopSec is waited for, and the instance is gone"
started=$(date +%s%N)
systemctl stop mrgc-agent
took_ms=$((($(date +%s%N) - started) / 1000000))
is mrgc-agent Result success
[ "$took_ms" -ge 3500 ] || fail "the agent did not drain: it was gone after $took_ms ms"
gone() { ! says 9000 /instances '"packaged"'; }
within 20 gone
echo "drained in $took_ms ms"

step "upgrade: a running service is left alone"
systemctl start mrgc-agent
pid=$(shown mrgc-agent MainPID)
dpkg --install /packages/mrgc-agent.deb
is mrgc-agent MainPID "$pid"
is mrgc-agent ActiveState active

step "purge: nothing is left"
rm -r /etc/systemd/system/mrgc-*.service.d
dpkg --purge mrgc-agent mrgc-router
left=$(find /etc /usr /var -path '*mrgc*' -not -path '/var/lib/dpkg/*')
[ -z "$left" ] || fail "left: $left"
if getent passwd mrgc-agent mrgc-router; then fail "a user is left"; fi
if pgrep mrgc-; then fail "a process is left"; fi

step "journal: nothing that systemd complains about in the units"
if journalctl --boot --no-pager --quiet _PID=1 | grep -E 'mrgc-.*\.service:[0-9]+:'; then fail "see above"; fi
echo "all is well"
