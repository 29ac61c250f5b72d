qemu-img create -q a 1M
qemu-img commit a
qemu-img commit -b x a
qemu-img rebase a
qemu-img rebase -b x a
qemu-img rebase -u -b x a
qemu-img amend a
qemu-img amend -o x=y a
qemu-img amend -f raw -o help
qemu-img amend -o help a
qemu-img bitmap a
qemu-img dd if=a
qemu-img dd if=a of=b
cmp a b
qemu-img commit
qemu-img rebase
qemu-img rebase -u
qemu-img amend -o a=b
qemu-img bitmap --add a
qemu-img commit -r x a
qemu-img commit -t foo a
qemu-img rebase -u -t foo a
qemu-img rebase -F foo -u a
qemu-img rebase -u a
qemu-img rebase -u -b '' a
qemu-img rebase -b '' a
