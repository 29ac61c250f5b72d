qemu-img create -q a 1M
qemu-img resize a 2M
qemu-img resize a +1M
qemu-img resize a -1M
qemu-img resize a 1M
qemu-img resize --shrink a -1M
qemu-img resize -f raw a 3M -q
qemu-img resize -f raw -q a 3M
stat -c %s a
qemu-img resize a 1
qemu-img resize a
qemu-img resize
qemu-img resize a b c
qemu-img resize a 1z
qemu-img resize a ''
qemu-img resize a -- -1
qemu-img resize a -5M
qemu-img resize a +16E
qemu-img resize a +8E
qemu-img resize -f raw --shrink a 1234
stat -c %s a
qemu-img resize --preallocation=full a 4M
qemu-img resize --preallocation=falloc -f raw a 4M
stat -c %b a
qemu-img resize --preallocation=metadata -f raw a 5M
qemu-img resize --preallocation=full -f raw a 4M
qemu-img resize --preallocation=foo -f raw a 4M
qemu-img resize nofile 1
qemu-img resize --image-opts file.filename=a,driver=raw,size=512 1M
