qemu-img create nope:x 1M
qemu-img info nope:x
qemu-img info file:x
qemu-img create file:x 1M
qemu-img info file:x
qemu-img info 'json:{"driver":"raw","file":{"driver":"file","filename":"x"}}'
qemu-img info --image-opts driver=raw,size=512,file.filename=x
qemu-img info --image-opts -f raw a
qemu-img info --image-opts x
qemu-img info -U --image-opts force-share=off,file.filename=x
