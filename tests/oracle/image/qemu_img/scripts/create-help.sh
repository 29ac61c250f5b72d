qemu-img create -o help
qemu-img create -f raw -o help x
qemu-img create -o '?'
