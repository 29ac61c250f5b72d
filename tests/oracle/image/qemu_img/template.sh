# Makes the folder that the command lines of `lines` are run in. Small, and of every kind.
set -e
umask 022
q="qemu-img create -q -f qcow2"
fill() { file=$1; shift; args=(); for c in "$@"; do args+=(-c "$c"); done; qemu-io "${args[@]}" "$file" >/dev/null; }
again() { for _ in 1 2 3 4 5 6 7 8; do "$@" 2>/dev/null && return; done; return 1; }  # its clock is coarse
truncate -s 1M raw; qemu-io -f raw -c 'write -P 1 64k 100k' -c 'write -P 2 900k 10k' raw >/dev/null
qemu-img create -q -f raw zero 1M
printf 'hello' >odd
: >empty
mkdir dir dir/sub
mkfifo fifo
ln -s q link; ln -s loop loop; ln -s nowhere dangling
$q q 1M; fill q 'write -P 1 64k 100k' 'write -P 2 900k 10k' 'write -z 512k 64k'
$q same 1M; fill same 'write -P 1 64k 100k' 'write -P 2 900k 10k'
$q -o compat=0.10 v2 1M; fill v2 'write -P 1 64k 100k'
$q -o compression_type=zstd z 1M; fill z 'write -c -P 3 0 64k' 'write -c -P 4 128k 64k'
$q c 1M; fill c 'write -c -P 3 0 64k' 'write -P 4 128k 64k'
$q -o extended_l2=on,cluster_size=16k x 1M; fill x 'write -P 5 3k 9k' 'write -z 64k 4k'
$q -o lazy_refcounts=on lazy 1M
$q -o data_file=ext.data,data_file_raw=on ext 1M; fill ext 'write -P 6 64k 64k'
$q -o data_file=ext2.data ext2 1M; fill ext2 'write -P 6 64k 64k'
$q -b q -F qcow2 ov; fill ov 'write -P 7 128k 64k' 'write -z 900k 4k'
$q -b raw -F raw ovr 2M; fill ovr 'write -P 8 0 1k'
$q -b ov -F qcow2 top; fill top 'write -P 9 300k 1k'
$q -u -b nothing -F qcow2 orphan 1M
$q selfish 1M; qemu-img rebase -u -b selfish -F qcow2 selfish
$q -o preallocation=metadata meta 1M
$q small 64k
$q tiny 0
$q b 1M
qemu-img bitmap --add -g 64k b one; fill b 'write -P 1 64k 100k'
qemu-img bitmap --add b two; qemu-img bitmap --disable b two
$q s 1M; fill s 'write -P 1 0 64k'; qemu-img snapshot -c one s; fill s 'write -P 2 0 64k'
qemu-img snapshot -c two s; qemu-img snapshot -c 7 s; fill s 'write -P 3 64k 1k'
again qemu-img create -q -f luks --object secret,id=k,data=secret -o key-secret=k,iter-time=10 luks 64k
again $q --object secret,id=k,data=secret -o encrypt.format=luks,encrypt.key-secret=k,encrypt.iter-time=10 eluks 128k
$q --object secret,id=k,data=secret -o encrypt.format=aes,encrypt.key-secret=k eaes 128k 2>/dev/null
qemu-img create -q -f vmdk vmdk 1M; qemu-img create -q -f vdi vdi 1M
printf secret >keyfile
python3 - <<'PY'
import os, random, shutil, struct
random.seed(5)
open("random", "wb").write(random.randbytes(65536))
def poke(name, source, *places):
    shutil.copy(source, name)
    with open(name, "r+b") as f:
        for at, data in places:
            f.seek(at); f.write(data)
poke("leaky", "q", (128 * 1024 + 2 * 7, b"\0\2"))
poke("corrupt", "q", (0x40000 + 8, struct.pack(">Q", 1 << 63 | 0x50200)))
poke("marked", "q", (72, struct.pack(">Q", 2)))
poke("dirty", "lazy", (72, struct.pack(">Q", 1)))
poke("unknown", "q", (72, struct.pack(">Q", 1 << 40)))
poke("autoclear", "q", (88, struct.pack(">Q", 1 << 40)))
poke("version4", "q", (4, struct.pack(">I", 4)))
poke("badshift", "q", (20, struct.pack(">I", 8)))
poke("hugel1", "q", (36, struct.pack(">I", 0x7fffffff)))
poke("badl1", "q", (40, struct.pack(">Q", 0x30001)))
poke("badrt", "q", (48, struct.pack(">Q", 0x10001)))
poke("norefs", "q", (65536, bytes(8)))
poke("badcrypt", "q", (32, struct.pack(">I", 9)))
poke("badorder", "q", (96, struct.pack(">I", 9)))
bits = open("b", "rb").read()
poke("broken-bitmap", "b", (bits.rindex(b"one") - 12, b"\0\0\0\3"))
data = open("q", "rb").read()
for n in (0, 1, 3, 4, 20, 71, 72, 90, 103, 104, 111, 112, 300, 511, 512, 65536, 65540, 131072, 131080, 196608, 196616, 262144, 262200, 327680, 330000):
    open(f"cut{n}", "wb").write(data[:n])
PY
printf 'x' >unreadable; chmod 000 unreadable
cp q readonly; chmod 444 readonly
chmod 555 dir
