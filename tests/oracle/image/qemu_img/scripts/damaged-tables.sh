# Commands that write to images whose tables name places that cannot be.
poke() { printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }
fresh() { rm -f a.qcow2; qemu-img create -q -f qcow2 ${2:+-o "$2"} a.qcow2 64M; qemu-io -c "write 0 ${1:-64k}" a.qcow2; }

echo '== a reserved zero cluster between two clusters'
fresh
poke a.qcow2 262144 '\x80\x00\x00\x00\x00\x05\x2a\x01'
qemu-img amend -o compat=0.10 a.qcow2

echo '== a refcount block between two clusters, while shrinking'
fresh 64k refcount_bits=1
poke a.qcow2 $((65536 + 8)) '\x00\x00\x00\x10\x00\x00\x00\x00'
poke a.qcow2 $((65536 + 16)) '\x00\x00\x00\x00\x00\x00\x02\x00'
qemu-img resize --shrink a.qcow2 32M
qemu-img check -q -r all a.qcow2
qemu-img check -r all a.qcow2

echo '== data far behind all refcount blocks'
for offset in '\xbf\xff\xff\xff\xff\xff\x00\x00' '\x80\x00\x00\xff\xff\xff\x00\x00'; do
    fresh 512
    poke a.qcow2 262144 "$offset"
    qemu-img snapshot -c test a.qcow2
    qemu-io -c 'discard 0 64k' a.qcow2
done

echo '== a snapshot that has no L1 table there, or too large a one'
for change in '0 \x00\x00\x00\x00\x00\x40\x02\x00' '8 \x10\x00\x00\x00'; do
    fresh 512
    qemu-img snapshot -c test a.qcow2
    table=$(od -A n -t u8 --endian=big -j 64 -N 8 a.qcow2)
    poke a.qcow2 $((table + ${change% *})) "${change#* }"
    qemu-img info a.qcow2 | grep -v -e 'disk size' -e ' test '
    qemu-img convert -l test a.qcow2 b.raw
    qemu-img amend -o compat=0.10 a.qcow2
    qemu-img snapshot -a test a.qcow2
    qemu-img snapshot -d test a.qcow2
    qemu-img check a.qcow2
done
