qemu-img create -q a 1M
qemu-img bench -c 1 a | head -1
qemu-img bench -c z a
qemu-img bench -d z a
qemu-img bench --pattern 256 a
qemu-img bench --flush-interval 5 a
qemu-img bench --flush-interval 5 -w a
qemu-img bench
qemu-img bench -i foo a
qemu-img bench -t foo a
qemu-img bench -s 5G a
qemu-img bench -S 5G a
qemu-img bench -o z a
qemu-img bench -w -f raw --pattern 0x41 -c 10 -s 4k -S 8k -o 4k a | head -1
md5sum a
qemu-img bench -w -f raw -c 10 -d 1 --flush-interval 5 --no-drain -n -U -q nofile
true
