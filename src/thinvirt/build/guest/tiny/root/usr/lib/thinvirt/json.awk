# JSON from standard input as lines PATH<TAB>VALUE: {"a":{"b":[1,"x"]}} gives "a/b/0<TAB>1" and
# "a/b/1<TAB>x". In values a backslash is doubled and a line feed is \n, as printf %b reads them;
# "/" and control characters in keys become "_". Input that is not JSON gives exit status 1 after
# the lines that were understood; nothing in it is ever evaluated.

{ text = text $0 "\n" }

END {
    if (length(text) > 262144) exit 1
    at = 1; size = length(text); broken = 0
    value("", 0)
    blank()
    exit (broken || at <= size)
}

function blank() { while (at <= size && index(" \t\r\n", substr(text, at, 1))) at++ }

function emit(path, what) { printf "%s\t%s\n", path, what }

function value(path, depth,    c, n, key, more, word) {
    blank()
    c = substr(text, at, 1)
    if (depth > 16) broken = 1
    if (broken) return
    if (c == "{" || c == "[") {
        at++; blank(); more = c == "{" ? "}" : "]"
        if (substr(text, at, 1) == more) { at++; return }
        for (n = 0; !broken; n++) {
            key = n
            if (c == "{") {
                blank()
                if (substr(text, at, 1) != "\"") { broken = 1; return }
                key = string(); gsub(/[\/\t]|\\n/, "_", key); blank()
                if (substr(text, at++, 1) != ":") { broken = 1; return }
            }
            value(path == "" ? key "" : path "/" key, depth + 1)
            blank()
            word = substr(text, at++, 1)
            if (word == more) return
            if (word != ",") broken = 1
        }
    } else if (c == "\"") {
        word = string()
        if (!broken) emit(path, word)
    } else {
        word = ""
        while (at <= size && (c = substr(text, at, 1)) ~ /[-+.0-9A-Za-z]/) { word = word c; at++ }
        if (word !~ /^(true|false|null|-?[0-9][-+.0-9eE]*)$/) broken = 1
        else emit(path, word)
    }
}

function string(    out, c, run) {
    out = ""; at++
    while (at <= size) {
        run = match(substr(text, at), /["\\\001-\037]/) ? RSTART - 1 : size - at + 1
        out = out substr(text, at, run); at += run
        c = substr(text, at, 1); at++
        if (c == "\"") return out
        if (c == "\\") {
            c = substr(text, at, 1); at++
            if (c == "n") out = out "\\n"
            else if (c == "t") out = out "\t"
            else if (c == "\\") out = out "\\\\"
            else if (c == "\"" || c == "/") out = out c
            else if (c == "u") { out = out unicode(substr(text, at, 4)); at += 4 }
            else if (c != "r" && c != "b" && c != "f") broken = 1
        } else if (c != "\t") broken = 1
        if (broken) return ""
    }
    broken = 1
    return ""
}

# UTF-8 of four hexadecimal digits; a surrogate pair takes the next escape along.
function unicode(digits,    code, low) {
    code = number(digits)
    if (code >= 55296 && code < 56320 && substr(text, at + 4, 2) == "\\u") {
        low = number(substr(text, at + 6, 4)); at += 6
        code = 65536 + (code - 55296) * 1024 + low - 56320
    }
    if (code == 10) return "\\n"
    if (code == 92) return "\\\\"
    if (code < 32) return ""
    if (code < 128) return sprintf("%c", code)
    if (code < 2048) return byte(192 + int(code / 64)) byte(128 + code % 64)
    if (code < 65536)
        return byte(224 + int(code / 4096)) byte(128 + int(code / 64) % 64) byte(128 + code % 64)
    return byte(240 + int(code / 262144)) byte(128 + int(code / 4096) % 64) \
        byte(128 + int(code / 64) % 64) byte(128 + code % 64)
}

function byte(n) { return sprintf("%c", n) }

function number(digits,    i, n, d) {
    n = 0
    for (i = 1; i <= 4; i++) {
        d = index("0123456789abcdef", tolower(substr(digits, i, 1)))
        if (d == 0) { broken = 1; return 0 }
        n = n * 16 + d - 1
    }
    return n
}
