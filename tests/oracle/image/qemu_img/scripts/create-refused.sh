qemu-img create -f raw -b a x 1M
qemu-img create -F raw x 1M
qemu-img create -f nope x 1M
qemu-img create -f raw x
qemu-img create -o size=1M x 2M
qemu-img create -o size=1M x
qemu-img create -o foo=bar x 1
qemu-img create -o preallocation=metadata x 1M
qemu-img create -o preallocation=foo x 1M
qemu-img create -qo preallocation=full x 1M
stat -c %b x
