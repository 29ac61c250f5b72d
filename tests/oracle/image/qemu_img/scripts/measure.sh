qemu-img create -q a 1M
qemu-img measure a
qemu-img measure --output=json a
qemu-img measure --size 5k
qemu-img measure --size 1000
qemu-img measure -O nope --size 1
qemu-img measure
qemu-img measure a b
qemu-img measure -f raw
qemu-img measure a --size 5
qemu-img measure -o foo=bar a
qemu-img measure -o size=bar a
qemu-img measure -l s1 a
qemu-img measure -l snapshot.id=1 a
qemu-img measure -l snapshot.foo=1 a
qemu-img measure --output=foo a
qemu-img measure --size 1z
qemu-img measure -o size=5M --size 1M
qemu-img measure nofile
