#!/usr/bin/env bash
# usage: tools/unpack_debian.sh ARCHITECTURE FOLDER [--no-deps] PACKAGE ...
# Unpacks packages of this Debian for an architecture into FOLDER/root, with what they depend on. Nothing is installed:
# apt has a state of its own in FOLDER/apt. With ARCHITECTURE "source", the original archives are downloaded to FOLDER.
set -euo pipefail
architecture=$1
folder=$(realpath -m "$2")
shift 2
apt=$folder/apt
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$folder/root"
: >"$apt/status"
lines="deb"
[ "$architecture" != source ] || lines="deb-src"
apt-get indextargets --format "$lines [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] \$(REPO_URI) \$(RELEASE) \$(COMPONENT)" \
  "Created-By: Packages" "Origin: Debian" >"$apt/sources.list"
cat >"$apt/conf" <<END
APT::Sandbox::User "root";
Dir::State "$apt"; Dir::State::status "$apt/status"; Dir::State::lists "$apt/lists"; Dir::Cache "$apt/cache";
Dir::Etc::sourcelist "$apt/sources.list"; Dir::Etc::sourceparts "-";
END
if [ "$architecture" != source ]; then
  echo "APT::Architecture \"$architecture\"; APT::Architectures { \"$architecture\"; };" >>"$apt/conf"
fi
export APT_CONFIG=$apt/conf
apt-get update -qq
if [ "$architecture" = source ]; then
  cd "$folder"
  exec apt-get source -qq --download-only --tar-only "$@"
elif [ "$1" = --no-deps ]; then
  cd "$apt/cache/archives"
  apt-get download -qq "${@:2}"
else
  apt-get install -y -qq --no-install-recommends --download-only "$@" >/dev/null
fi
for package in "$apt"/cache/archives/*.deb; do dpkg -x "$package" "$folder/root"; done
