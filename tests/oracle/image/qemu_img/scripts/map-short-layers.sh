qemu-img create -q -f raw a 2621000
qemu-img create -q -f qcow2 -b a -F raw b 2621952
qemu-img create -q -f qcow2 -b b -F qcow2 c 2622976
qemu-img create -q -f qcow2 -b c -F qcow2 d 3M
qemu-io -c 'write 2500k 50k' b
for image in b c d; do
    qemu-img map $image
    qemu-img map --output=json $image
    qemu-img map --output=json -s 2621000 $image
    qemu-img convert -O qcow2 $image e
    qemu-img map --output=json e
    qemu-img measure -O qcow2 $image
    qemu-img compare -s $image e
done
qemu-img commit d
qemu-img map --output=json c
