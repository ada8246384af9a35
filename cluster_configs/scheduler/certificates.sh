#!/bin/sh
# Certificates for a Dask cluster: an authority of your own, one for scheduler and workers, one for clients.
#
#   sh certificates.sh FOLDER HOST...
#
# HOST: names or addresses of the machines that scheduler and workers run on. Run it again to add hosts or to
# renew: the authority stays. Whoever reads a key can run code on the cluster: copy node-key.pem to its machines
# and client-key.pem to the users, by a safe way, and ca-key.pem to nobody.
set -eu
umask 077
[ $# -ge 2 ] || { echo "usage: sh certificates.sh FOLDER HOST..." >&2; exit 2; }
mkdir -p "$1"
cd "$1"
shift

names=
for host; do
    case $host in
        *:*) names="$names,IP:$host" ;;
        *[!0-9.]*) names="$names,DNS:$host" ;;
        *) names="$names,IP:$host" ;;
    esac
done

new_key() {
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"
}

issue() { # NAME EXTENSIONS: a key and a certificate that the authority signs
    new_key "$1-key.pem"
    printf '%s\n' basicConstraints=critical,CA:FALSE authorityKeyIdentifier=keyid "$2" > "$1.ext"
    openssl req -new -key "$1-key.pem" -subj "/CN=dask $1" |
        openssl x509 -req -CA ca.pem -CAkey ca-key.pem -set_serial "0x$(openssl rand -hex 16)" -days 825 \
            -sha256 -extfile "$1.ext" -out "$1.pem"
    rm "$1.ext"
}

if [ ! -e ca-key.pem ]; then
    new_key ca-key.pem
    openssl req -x509 -new -key ca-key.pem -subj "/CN=dask authority" -days 3650 -sha256 -out ca.pem
fi
issue node "subjectAltName=${names#,}"
issue client extendedKeyUsage=clientAuth
chmod 644 ca.pem node.pem client.pem
