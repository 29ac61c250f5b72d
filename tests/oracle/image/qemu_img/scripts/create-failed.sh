# No secret, or a bad one: no image is left behind, nor the empty file that was there.
printf '\x3a\x3c\x3b\xff' >bad
try() {
    qemu-img create -f "$@" v 4M
    ls v
    touch v
    qemu-img create -f "$@" v 4M
    ls v
    rm -f v
}
for secret in file=bad; do
    try luks --object secret,id=s,$secret -o key-secret=s,hash-alg=sha1,ivgen-alg=essiv
    try qcow2 --object secret,id=s,$secret -o encrypt.format=aes,encrypt.key-secret=s,encrypt.iter-time=1
    try qcow2 --object secret,id=s,$secret -o encrypt.format=luks,encrypt.key-secret=other
done
try luks
try luks -o key-secret=none
try luks -o cipher-alg=none
try qcow2 -o encrypt.format=luks
try qcow2 -o encrypt.format=none
