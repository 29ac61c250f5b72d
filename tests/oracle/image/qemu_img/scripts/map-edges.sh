qemu-img create -q a 0
qemu-img map a
qemu-img map --output=json a
qemu-img map --image-opts driver=null-co,size=1M
qemu-img map --output=json --image-opts driver=null-co,size=1M,read-zeroes=on
qemu-img map --output=json --image-opts driver=raw,offset=512,size=512,file.filename=a
qemu-img create -q b 1M
qemu-img map --output=json --image-opts driver=raw,offset=512,size=1024,file.filename=b
qemu-img map --output=json --image-opts driver=raw,offset=512,size=1000,file.filename=b
