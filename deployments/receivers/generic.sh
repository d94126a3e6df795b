#!/bin/sh
# A monitoring script of your own: post a file as it is, signed with the secret of MLRUNBOOK_WEBHOOK_SECRET_GENERIC.
# Where your JSON keeps model, status and the like stands in `intake.generic` of the policy.
set -eu
signature=$(openssl dgst -sha256 -hmac "$MLRUNBOOK_WEBHOOK_SECRET_GENERIC" -r < "$1" | cut -d ' ' -f 1)
curl --fail-with-body -sS -X POST "${MLRUNBOOK_GATEWAY_URL:-http://127.0.0.1:8090}/webhooks/generic" \
  -H "Content-Type: application/json" -H "X-Hub-Signature-256: sha256=$signature" --data-binary "@$1"
