#!/bin/sh
# Bring a lab host into the state that its name says, as its owner would have: by hand, with apt.
set -eu
export DEBIAN_FRONTEND=noninteractive
local=http://127.0.0.1:8999

# archive NAME URI SUITE COMPONENTS KEY: add an archive by hand.
archive() {
  mkdir -p /etc/apt/keyrings
  cp "/srv/lab-archive/keys/$5.asc" "/etc/apt/keyrings/by-hand-$5.asc"
  echo "deb [signed-by=/etc/apt/keyrings/by-hand-$5.asc] $2 $3 $4" >"/etc/apt/sources.list.d/by-hand-$1.list"
}

driver() {
  apt-get install -qq -y linux-modules-nvidia-580-server-open-generic nvidia-headless-no-dkms-580-server-open \
    nvidia-utils-580-server
}

case $1 in
  fresh)
    # As the installer leaves it: nouveau drives the cards.
    echo nouveau >/var/lib/lab-silicon/faults
    ;;
  used)
    archive ubuntu "$local/ubuntu" noble restricted ubuntu
    archive docker "$local/docker" trixie stable docker
    archive toolkit "$local/toolkit" / '' toolkit
    apt-get update -qq
    driver
    apt-get install -qq -y gpg docker-ce docker-compose-plugin
    apt-get install -qq -y nvidia-container-toolkit=1.17.7-1 nvidia-container-toolkit-base=1.17.7-1 \
      libnvidia-container-tools=1.17.7-1 libnvidia-container1=1.17.7-1
    ;;
  half)
    archive ubuntu "$local/ubuntu" noble-before restricted ubuntu
    apt-get update -qq
    driver
    ;;
  half-booted)
    archive ubuntu "$local/ubuntu" noble restricted ubuntu
    apt-get update -qq
    apt-get upgrade -qq -y --with-new-pkgs
    ;;
  kernel)
    archive ubuntu "$local/ubuntu" noble restricted ubuntu
    apt-get update -qq
    apt-get install -qq -y linux-image-6.8.0-1-generic linux-modules-nvidia-580-server-open-6.8.0-1-generic \
      nvidia-headless-no-dkms-580-server-open nvidia-utils-580-server
    ;;
esac
