# The S3 server's first process. Its network is its own; a bucket is a folder of the machine.
. "$STATE/config/supervise.sh"
PKI=$STATE/pki
export ROOT_ACCESS_KEY_ID=$ACCESS_KEY_ID
ROOT_SECRET_ACCESS_KEY=$(cat "$PKI/s3-secret-access-key")
export ROOT_SECRET_ACCESS_KEY

supervise versitygw "$STATE/bin/versitygw" --port="$LISTEN" --quiet \
  --cert="$PKI/s3.crt" --key="$PKI/s3.key" posix "$BUCKETS"
wait
