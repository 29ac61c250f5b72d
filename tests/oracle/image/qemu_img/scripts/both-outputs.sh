# Standard output and error in one pipe: what comes first.
qemu-img create -q -f raw a 1M
qemu-img create -q -f raw b 2M
printf '[inject-error]\nevent = "read_aio"\nerrno = "5"\nonce = "off"\n' >rules
qemu-io -f raw -c 'write 1536k 512' b
qemu-img compare -f raw -F raw a blkdebug:rules:b
qemu-img create -f qcow2 -o cluster_size=17 c 1M
qemu-img info --backing-chain a missing

# a damaged image, more than fits the buffer, and a pipe of its own
qemu-img create -q -f qcow2 d 64M
qemu-io -c 'write 0 1M' d
dd if=/dev/zero of=d bs=64k seek=2 count=1 conv=notrunc status=none
qemu-img check d
qemu-img check -r all d
for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    qemu-img create -q -f qcow2 -F qcow2 -b "$([ $n = 1 ] && echo d || echo c$((n - 1)))" c$n 64M
done
rm d
qemu-img create -q -f raw d 0
qemu-img info --backing-chain c20 | sed -e '/disk size/d'
qemu-img info --backing-chain c20 2>/dev/null | sed -e '/disk size/d'
