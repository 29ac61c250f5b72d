qemu-img create -q a 1M
qemu-img check a
qemu-img check -f raw a
qemu-img check -r all a
qemu-img check -r foo a
qemu-img check
qemu-img check -T foo a
qemu-img check --output=json a
qemu-img check --output=foo a
qemu-img check nofile
qemu-img check -q a
qemu-img check -U -r leaks a
