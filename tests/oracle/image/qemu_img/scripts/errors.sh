qemu-img convert --image-opts driver=null-co,size=1M,read-zeroes=on b
stat -c '%b %s' b
qemu-img convert --image-opts driver=null-co,size=1M b
stat -c '%b %s' b
qemu-img create -q a 1M
broken=driver=raw,file.driver=blkdebug,file.image.filename=a,file.inject-error.0.event=read_aio
qemu-img convert --image-opts $broken,file.inject-error.0.sector=512 b
qemu-img convert --image-opts $broken b
qemu-img convert --salvage --image-opts $broken b
qemu-img convert -q --salvage --image-opts $broken b
qemu-img compare --image-opts $broken file.filename=b
