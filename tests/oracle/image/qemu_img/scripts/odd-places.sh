qemu-img info --image-opts driver=null-co,size=1M
qemu-img info --output=json --image-opts driver=null-co,size=1M
qemu-img info /dev/null
qemu-img info .
qemu-img info ''
qemu-img create '' 1
qemu-img create . 1
qemu-img create nodir/x 1
qemu-img create -o size=1M,nocow=on x
qemu-img create -o size=1M,nocow=maybe x
qemu-img create -o size=-1 x
qemu-img create x -- -1
