#!/bin/sh
# A step of a delivery pipeline: tell what changed near a model, so that an incident after it finds it. Needs a token of scope report.
# change.sh MODEL KIND REF AUTHOR, KIND one of deployment rollback staging config feature_store infrastructure data_pipeline
set -eu
body=$(printf '{"model": "%s", "kind": "%s", "ref": "%s", "author": "%s", "at": "%s"}' "$1" "$2" "$3" "$4" "$(date -u +%Y-%m-%dT%H:%M:%SZ)")
curl --fail-with-body -sS -X POST "${MLRUNBOOK_GATEWAY_URL:-http://127.0.0.1:8090}/api/v1/changes" \
  -H @- -H "Content-Type: application/json" -d "$body" <<HEADER
Authorization: Bearer $MLRUNBOOK_GATEWAY_TOKEN
HEADER
