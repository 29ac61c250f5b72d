# Only what was changed goes down, also where a cluster of the base is much larger.
for o in extended_l2=on extended_l2=off compat=0.10; do
    qemu-img create -q -f qcow2 -o cluster_size=2M,$o a 8M
    qemu-io -c 'write -q -P 1 0 100k' -c 'write -q -P 2 1M 300k' -c 'write -q -P 3 5M 64k' a
    qemu-img snapshot -c s a
    qemu-img create -q -f qcow2 -b a -F qcow2 b
    qemu-io -c 'write -q -P 9 128k 64k' b
    qemu-img commit b
    qemu-img map --output=json a
    qemu-img check a
    rm a b
done
