#!/bin/sh
# Finish a lab host's root file system: a user with sudo, SSH by key only, writable cgroups for its own Docker.
set -eu
root=$1

chroot "$root" useradd --create-home --shell /bin/bash rig
install -d -m 0700 "$root/home/rig/.ssh"
chroot "$root" chown rig:rig /home/rig/.ssh
echo 'rig ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/rig"
chmod 0440 "$root/etc/sudoers.d/rig"
printf 'PasswordAuthentication no\nPermitRootLogin no\nUseDNS no\nStrictModes no\n' >"$root/etc/ssh/sshd_config.d/lab.conf"
rm -f "$root"/etc/ssh/ssh_host_*
: >"$root/etc/machine-id"

# A container's cgroup mounts come read-only under cgroup v1; the inner Docker needs to write there.
cat >"$root/etc/systemd/system/lab-cgroups.service" <<'UNIT'
[Unit]
Description=Lab: let this container's own Docker manage cgroups
DefaultDependencies=no
Before=sysinit.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'awk "\\$3 ~ /^cgroup/ || \\$2 == \\"/sys/fs/cgroup\\" {print \\$2}" /proc/mounts | while read -r m; do mount -o remount,bind,rw "$$m" || true; done'
[Install]
WantedBy=sysinit.target
UNIT
chroot "$root" systemctl enable lab-cgroups.service
# Nothing of these exists in a container.
chroot "$root" systemctl mask systemd-udev-trigger.service systemd-modules-load.service sys-kernel-debug.mount \
  sys-kernel-tracing.mount dev-hugepages.mount systemd-firstboot.service getty.target console-getty.service
