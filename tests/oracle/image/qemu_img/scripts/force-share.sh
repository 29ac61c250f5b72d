qemu-img create -q a 1M
command qemu-io -f raw -c 'read 0 512' -c 'sleep 4000' a > said &
while ! [ -s said ]; do sleep 0.05; done
qemu-img info -f raw a
qemu-img info -U a
qemu-img map -f raw a
qemu-img map -U --output=json -f raw a
qemu-img compare -U -f raw -F raw a a
qemu-img resize -f raw a 2M
qemu-img convert -U -f raw a b
wait
qemu-img info a
