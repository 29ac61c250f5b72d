qemu-img create -q a 1M
for c in amend bench bitmap check commit compare convert create dd info map rebase resize snapshot; do qemu-img $c --nope x; qemu-img $c -; qemu-img $c --obj; qemu-img $c -- -f; qemu-img $c -Z; qemu-img $c --help=1; done
rm -f a
