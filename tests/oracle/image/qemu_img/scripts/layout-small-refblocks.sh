# Where things are put when a refcount block counts few clusters, itself perhaps not among them.
head -c 1M /dev/zero | tr '\0' x >a
truncate -s 16M a
for bits in 64 16; do
    qemu-img convert -m 1 -f raw -O qcow2 -o refcount_bits=$bits,cluster_size=512 a b
    qemu-img check b
    od -A n -t x8 b | md5sum # all of it, tables too
done
