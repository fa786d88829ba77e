#!/bin/sh
# Installs MRGC's agent into an image that is being built: install.sh PACKAGE [CONFIGURATION]
#
# PACKAGE is the .deb or the .rpm; CONFIGURATION replaces /etc/mrgc/agent.toml. The agent is enabled and not
# started: each instance that is started from the image registers as itself.
set -eu

package=${1:?usage: install.sh PACKAGE [CONFIGURATION]}
configuration=${2:-}

case $package in
*.deb)
    export DEBIAN_FRONTEND=noninteractive
    apt-get update --quiet
    # apt takes a file for a file by its slash.
    apt-get install --quiet --yes --no-install-recommends "$(realpath "$package")"
    ;;
*.rpm)
    dnf install --assumeyes "$package"
    ;;
*)
    echo "$package is neither a .deb nor an .rpm" >&2
    exit 1
    ;;
esac

if [ -n "$configuration" ]; then
    install --mode=0644 "$configuration" /etc/mrgc/agent.toml
fi
mrgc-agent validate --config /etc/mrgc/agent.toml
systemctl enable mrgc-agent.service

# Nothing of this machine may be in the image.
if systemctl --quiet is-active mrgc-agent.service; then
    echo "mrgc-agent runs while the image is built: it would be in the fleet as this machine" >&2
    exit 1
fi
rm -rf /var/lib/mrgc-agent /var/log/mrgc-agent
