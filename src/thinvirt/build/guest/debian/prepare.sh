#!/bin/sh
# Put our files into a tree that has the essential packages only, before what reads them is
# installed. Their modes are set here: a checkout or a wheel keeps only some of them.
# usage: prepare.sh ROOT; mmdebstrap runs it outside the tree, as (apparent) root.
set -eu
root=$1
cd "$(dirname "$0")/root"
find . -type d | while read -r folder; do
    [ -d "$root/$folder" ] || install -d -m 755 "$root/$folder"
done
find . -type f | while read -r file; do install -m 644 "$file" "$root/$file"; done
chmod 755 "$root"/etc/initramfs-tools/hooks/*
