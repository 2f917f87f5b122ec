-- CreateEnum
CREATE TYPE "ModelOperation" AS ENUM ('CHAT', 'EMBEDDING', 'RERANK', 'IMAGE', 'SPEECH', 'TRANSCRIPTION', 'MODERATION', 'VIDEO');
CREATE TYPE "ModelRequestStatus" AS ENUM ('PENDING', 'PROCESSING', 'COMPLETED', 'FAILED', 'CANCELLED');
CREATE TYPE "RequestAttemptStatus" AS ENUM ('SUCCEEDED', 'FAILED', 'CANCELLED', 'LOST', 'RELEASED');

-- CreateTable
CREATE TABLE "model_requests" (
    "id" TEXT NOT NULL,
    "sequence" BIGSERIAL NOT NULL,
    "workspace_id" TEXT NOT NULL,
    "provider_id" TEXT NOT NULL,
    "model_id" TEXT,
    "model_ref" TEXT NOT NULL,
    "status" "ModelRequestStatus" NOT NULL DEFAULT 'PENDING',
    "operation" "ModelOperation" NOT NULL DEFAULT 'CHAT',
    "priority" INTEGER NOT NULL DEFAULT 0,
    "idempotency_key" TEXT,
    "request_digest" TEXT,
    "deadline" TIMESTAMPTZ(6),
    "owner_id" TEXT,
    "is_streamed" BOOLEAN NOT NULL DEFAULT false,
    "fallback_model_ids" TEXT[] DEFAULT ARRAY[]::TEXT[],
    "payload" JSONB NOT NULL,
    "parameters" JSONB NOT NULL DEFAULT '{}',
    "metadata" JSONB NOT NULL DEFAULT '{}',
    "reserved_tokens" INTEGER NOT NULL,
    "available_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "max_attempts" INTEGER NOT NULL DEFAULT 3,
    "attempt_count" INTEGER NOT NULL DEFAULT 0,
    "lease_id" TEXT,
    "lease_expires_at" TIMESTAMPTZ(6),
    "lease_started_at" TIMESTAMPTZ(6),
    "worker_id" TEXT,
    "start_sequence" BIGINT,
    "cancel_requested_at" TIMESTAMPTZ(6),
    "output" JSONB,
    "output_text" TEXT,
    "input_tokens" INTEGER,
    "output_tokens" INTEGER,
    "cache_read_tokens" INTEGER,
    "cache_write_tokens" INTEGER,
    "reasoning_tokens" INTEGER,
    "images" INTEGER,
    "characters" INTEGER,
    "seconds" DECIMAL(20,6),
    "searches" INTEGER,
    "usage_estimated" BOOLEAN,
    "cost_total" DECIMAL(38,18),
    "currency" TEXT,
    "error" JSONB,
    "created_by" TEXT,
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "started_at" TIMESTAMPTZ(6),
    "finished_at" TIMESTAMPTZ(6),

    CONSTRAINT "model_requests_pkey" PRIMARY KEY ("id")
);

CREATE TABLE "owner_processes" (
    "id" TEXT NOT NULL,
    "expires_at" TIMESTAMPTZ(6) NOT NULL,

    CONSTRAINT "owner_processes_pkey" PRIMARY KEY ("id")
);

CREATE TABLE "request_attempts" (
    "request_id" TEXT NOT NULL,
    "number" INTEGER NOT NULL,
    "lease_id" TEXT NOT NULL,
    "worker_id" TEXT NOT NULL,
    "status" "RequestAttemptStatus" NOT NULL,
    "model_ref" TEXT NOT NULL,
    "started_at" TIMESTAMPTZ(6) NOT NULL,
    "first_chunk_at" TIMESTAMPTZ(6),
    "finished_at" TIMESTAMPTZ(6) NOT NULL,
    "response_model" TEXT,
    "provider_request_id" TEXT,
    "finish_reason" TEXT,
    "http_status" INTEGER,
    "error" JSONB,

    CONSTRAINT "request_attempts_pkey" PRIMARY KEY ("request_id", "lease_id")
);

-- Not logged: what a crash of the server loses here, the request's own row tells when it ends.
CREATE UNLOGGED TABLE "request_chunks" (
    "request_id" TEXT NOT NULL,
    "lease_id" TEXT NOT NULL,
    "sequence" INTEGER NOT NULL,
    "chunks" JSONB NOT NULL,

    CONSTRAINT "request_chunks_pkey" PRIMARY KEY ("request_id", "lease_id", "sequence")
);

CREATE TABLE "provider_starts" (
    "provider_id" TEXT NOT NULL,
    "sequence" BIGINT NOT NULL,
    "request_id" TEXT NOT NULL,
    "lease_id" TEXT NOT NULL,
    "started_at" TIMESTAMPTZ(6) NOT NULL,
    "reserved_tokens" INTEGER NOT NULL,
    "settled_tokens" INTEGER,
    "ended_at" TIMESTAMPTZ(6),

    CONSTRAINT "provider_starts_pkey" PRIMARY KEY ("provider_id", "sequence")
) WITH (fillfactor = 70); -- room on the page for the settlement of each start

CREATE TABLE "limit_states" (
    "provider_id" TEXT NOT NULL,
    "last_sequence" BIGINT NOT NULL DEFAULT 0,
    "floor_sequence" BIGINT NOT NULL DEFAULT 0,
    "window_tokens" BIGINT NOT NULL DEFAULT 0,
    "clock" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "consecutive_failures" INTEGER NOT NULL DEFAULT 0,
    "circuit_open_until" TIMESTAMPTZ(6),
    "circuit_openings" INTEGER NOT NULL DEFAULT 0,
    "window_milliseconds" INTEGER NOT NULL DEFAULT 60000,
    "delivery_milliseconds" INTEGER NOT NULL DEFAULT 600,

    CONSTRAINT "limit_states_pkey" PRIMARY KEY ("provider_id")
) WITH (fillfactor = 10);

CREATE TABLE "ledger_entries" (
    "workspace_id" TEXT NOT NULL,
    "request_id" TEXT NOT NULL,
    "lease_id" TEXT NOT NULL,
    "model_ref" TEXT NOT NULL,
    "unit" "UsageUnit" NOT NULL,
    "quantity" DECIMAL(20,6) NOT NULL,
    "price_id" TEXT,
    "price_per_million" DECIMAL(20,10),
    "amount" DECIMAL(38,18),
    "currency" TEXT NOT NULL,
    "is_estimated" BOOLEAN NOT NULL,
    "charged_at" TIMESTAMPTZ(6) NOT NULL,

    CONSTRAINT "ledger_entries_pkey" PRIMARY KEY ("request_id", "lease_id", "unit")
);

-- CreateIndex
CREATE INDEX "model_requests_model_id_idx" ON "model_requests"("model_id");
CREATE INDEX "ledger_entries_workspace_id_charged_at_idx" ON "ledger_entries"("workspace_id", "charged_at");

-- AddForeignKey
ALTER TABLE "model_requests" ADD CONSTRAINT "model_requests_workspace_id_fkey"
  FOREIGN KEY ("workspace_id") REFERENCES "workspaces"("id") ON DELETE RESTRICT ON UPDATE CASCADE;
ALTER TABLE "model_requests" ADD CONSTRAINT "model_requests_model_id_fkey"
  FOREIGN KEY ("model_id") REFERENCES "llm_models"("id") ON DELETE SET NULL ON UPDATE CASCADE;
ALTER TABLE "request_attempts" ADD CONSTRAINT "request_attempts_request_id_fkey"
  FOREIGN KEY ("request_id") REFERENCES "model_requests"("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "provider_starts" ADD CONSTRAINT "provider_starts_provider_id_fkey"
  FOREIGN KEY ("provider_id") REFERENCES "llm_providers"("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "limit_states" ADD CONSTRAINT "limit_states_provider_id_fkey"
  FOREIGN KEY ("provider_id") REFERENCES "llm_providers"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- ---------------------------------------------------------------------------
-- What Prisma cannot express
-- ---------------------------------------------------------------------------

-- One request per idempotency key of a workspace.
CREATE UNIQUE INDEX "model_requests_one_per_idempotency_key" ON "model_requests"("workspace_id", "idempotency_key")
  WHERE "idempotency_key" IS NOT NULL;
-- The queue of one provider: priority, then age. What any worker may run, and what only its owner may.
CREATE INDEX "model_requests_queue" ON "model_requests"("provider_id", "priority" DESC, "sequence")
  WHERE "status" = 'PENDING' AND "owner_id" IS NULL;
CREATE INDEX "model_requests_owned_queue" ON "model_requests"("provider_id", "priority" DESC, "sequence")
  WHERE "status" = 'PENDING' AND "owner_id" IS NOT NULL;
-- The running calls of one provider, by the time their leases end.
CREATE INDEX "model_requests_leases" ON "model_requests"("provider_id", "lease_expires_at") WHERE "status" = 'PROCESSING';
-- Retries by the time they may be claimed.
CREATE INDEX "model_requests_retries" ON "model_requests"("provider_id", "available_at") WHERE "status" = 'PENDING' AND "attempt_count" > 0;
-- Waiting requests by the time they are given up.
CREATE INDEX "model_requests_deadlines" ON "model_requests"("provider_id", "deadline") WHERE "status" = 'PENDING' AND "deadline" IS NOT NULL;
-- Waiting requests that another model may take over.
CREATE INDEX "model_requests_fallbacks" ON "model_requests"("provider_id", "sequence") WHERE "status" = 'PENDING' AND "fallback_model_ids" <> '{}';
-- What went wrong, newest first.
CREATE INDEX "model_requests_failed" ON "model_requests"("workspace_id", "id") WHERE "status" = 'FAILED';

ALTER TABLE "model_requests" ADD CONSTRAINT "model_requests_reserved_tokens_not_negative" CHECK ("reserved_tokens" >= 0);
ALTER TABLE "model_requests" ADD CONSTRAINT "model_requests_max_attempts_at_least_one" CHECK ("max_attempts" >= 1);
ALTER TABLE "model_requests" ADD CONSTRAINT "model_requests_cost_not_negative" CHECK ("cost_total" >= 0);
-- A lease is held exactly while a request is processed.
ALTER TABLE "model_requests" ADD CONSTRAINT "model_requests_lease_while_processing"
  CHECK (("status" = 'PROCESSING') = ("lease_id" IS NOT NULL AND "lease_expires_at" IS NOT NULL));
ALTER TABLE "ledger_entries" ADD CONSTRAINT "ledger_entries_quantity_not_negative" CHECK ("quantity" >= 0);
ALTER TABLE "ledger_entries" ADD CONSTRAINT "ledger_entries_amount_not_negative" CHECK ("amount" >= 0);
ALTER TABLE "limit_states" ADD CONSTRAINT "limit_states_window_at_least_one" CHECK ("window_milliseconds" >= 1 AND "delivery_milliseconds" >= 0);

-- The ledger is a record of facts.
CREATE TRIGGER "ledger_entries_append_only" BEFORE UPDATE OR DELETE ON "ledger_entries"
  FOR EACH ROW EXECUTE FUNCTION refuse_change_of_history();
-- A start is settled once; nothing else of it ever changes.
CREATE TRIGGER "provider_starts_append_only" BEFORE UPDATE ON "provider_starts" FOR EACH ROW
  WHEN (OLD."ended_at" IS NOT NULL OR NEW."ended_at" IS NULL OR OLD."started_at" IS DISTINCT FROM NEW."started_at"
        OR OLD."reserved_tokens" IS DISTINCT FROM NEW."reserved_tokens" OR OLD."sequence" IS DISTINCT FROM NEW."sequence"
        OR OLD."request_id" IS DISTINCT FROM NEW."request_id" OR OLD."lease_id" IS DISTINCT FROM NEW."lease_id")
  EXECUTE FUNCTION refuse_change_of_history();

-- Every provider has its limit state.
CREATE FUNCTION create_limit_state() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO "limit_states" ("provider_id") VALUES (NEW."id");
  RETURN NULL;
END $$;
CREATE TRIGGER "llm_providers_create_limit_state" AFTER INSERT ON "llm_providers"
  FOR EACH ROW EXECUTE FUNCTION create_limit_state();
INSERT INTO "limit_states" ("provider_id") SELECT "id" FROM "llm_providers";

-- Tells listeners which requests changed. A payload holds at most 8000 bytes: 250 ids of 25 characters fit.
CREATE FUNCTION announce_requests(p_ids text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 0 .. (coalesce(array_length(p_ids, 1), 0) - 1) / 250 LOOP
    PERFORM pg_notify('tollgate_requests', array_to_string(p_ids[i * 250 + 1 : (i + 1) * 250], ' '));
  END LOOP;
END $$;

-- Takes back what expired leases held: the request waits again, or ends where its attempts are spent, its caller has
-- cancelled it, or the process that its client waited at is gone. The caller holds the provider's lock.
CREATE FUNCTION rescue_requests(p_provider_id text, p_now timestamptz) RETURNS text[] LANGUAGE plpgsql
SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE v_ids text[];
BEGIN
  WITH expired AS MATERIALIZED (
    SELECT id, attempt_count, lease_id, worker_id, lease_started_at, start_sequence, model_ref,
           CASE WHEN cancel_requested_at IS NOT NULL THEN 'CANCELLED'
                WHEN attempt_count >= max_attempts OR owner_id IS NOT NULL THEN 'FAILED'
                ELSE 'PENDING' END::"ModelRequestStatus" AS new_status
      FROM model_requests
     WHERE provider_id = p_provider_id AND status = 'PROCESSING' AND lease_expires_at <= p_now
       FOR UPDATE SKIP LOCKED
  ), lost AS (
    INSERT INTO request_attempts (request_id, number, lease_id, worker_id, status, model_ref, started_at, finished_at, error)
    SELECT id, attempt_count, lease_id, worker_id, 'LOST', model_ref, lease_started_at, p_now,
           jsonb_build_object('code', 'LEASE_LOST', 'message', 'the worker did not renew its lease', 'retryable', true)
      FROM expired
  ), ended AS (
    -- What the lost call used is not known: its reservation stays in the window.
    UPDATE provider_starts s SET ended_at = p_now FROM expired e
     WHERE s.provider_id = p_provider_id AND s.sequence = e.start_sequence
  ), emptied AS (
    DELETE FROM request_chunks c USING expired e WHERE c.request_id = e.id
  ), moved AS (
    UPDATE model_requests r
       SET status = e.new_status,
           error = CASE WHEN e.new_status = 'FAILED'
                        THEN jsonb_build_object('code', 'LEASE_LOST', 'message', 'every attempt lost its worker', 'retryable', false) END,
           finished_at = CASE WHEN e.new_status <> 'PENDING' THEN p_now END,
           available_at = p_now,
           lease_id = NULL, lease_expires_at = NULL, lease_started_at = NULL, worker_id = NULL, start_sequence = NULL
      FROM expired e WHERE r.id = e.id
    RETURNING r.id
  )
  SELECT array_agg(id) INTO v_ids FROM moved;
  RETURN v_ids;
END $$;

-- The first usable model of a list, and what is left of the list after it. Not usable is a model that is not active, or
-- whose provider is disabled, never permits so many tokens, is the one to be avoided or has its circuit open (the last
-- only where there is one to be avoided: else its own circuit is waited for).
CREATE FUNCTION next_fallback(p_model_ids text[], p_tokens integer, p_now timestamptz, p_avoided_provider_id text)
RETURNS TABLE (model_id text, provider_id text, model_ref text, rest text[]) LANGUAGE sql STABLE AS $$
  SELECT m.id, m.provider_id, p.name || ':' || m.model_id, p_model_ids[c.place + 1 :]
    FROM unnest(p_model_ids) WITH ORDINALITY AS c(id, place)
    JOIN llm_models m ON m.id = c.id AND m.status = 'ACTIVE'
    JOIN llm_providers p ON p.id = m.provider_id AND p.is_enabled AND p_tokens <= coalesce(p.tokens_per_minute, p_tokens)
    JOIN limit_states t ON t.provider_id = p.id
   WHERE p_avoided_provider_id IS NULL
      OR (p.id <> p_avoided_provider_id AND coalesce(t.circuit_open_until, p_now) <= p_now)
   ORDER BY c.place LIMIT 1
$$;

-- Sends the waiting requests of a provider that is not to be called on to the next model of their lists, of another
-- provider; one that has none there waits on. No attempt is spent. The caller holds the provider's lock.
CREATE FUNCTION divert_requests(p_provider_id text, p_now timestamptz) RETURNS text[] LANGUAGE plpgsql
SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE v_ids text[]; v_providers text[];
BEGIN
  WITH waiting AS MATERIALIZED (
    SELECT id, fallback_model_ids, reserved_tokens FROM model_requests
     WHERE provider_id = p_provider_id AND status = 'PENDING' AND fallback_model_ids <> '{}' FOR UPDATE SKIP LOCKED
  ), moved AS (
    UPDATE model_requests r
       SET provider_id = n.provider_id, model_id = n.model_id, model_ref = n.model_ref, fallback_model_ids = n.rest,
           max_attempts = r.attempt_count + 3, available_at = p_now
      FROM waiting w CROSS JOIN LATERAL next_fallback(w.fallback_model_ids, w.reserved_tokens, p_now, p_provider_id) n
     WHERE r.id = w.id
    RETURNING r.id, r.provider_id
  )
  SELECT array_agg(id), array_agg(DISTINCT provider_id) INTO v_ids, v_providers FROM moved;
  PERFORM pg_notify('tollgate_work', id) FROM unnest(v_providers) AS id;
  RETURN v_ids;
END $$;

-- Admits the requests of one provider that its limits permit now, and leases them to a process.
--
-- The provider's row is locked first; the clock is read and starts are counted in later statements, whose snapshots
-- see every start committed before (a count in the statement that locks does not, and admits too many). A start
-- stays counted for the window and delivery_milliseconds more, since a call arrives at the provider after its start.
--
-- A worker claims what has no owner (p_owner_id null), a process whose clients wait at it what it owns. There is one
-- queue all the same: permits that belong to others further ahead are left to them.
--
-- One of the rows returned has no request_id: wait_seconds says when the next claim can be of use (null: only a
-- notification can make it so), send_within_seconds how long a start's permit holds, and waited_seconds how long the
-- claim waited for the lock: on the caller's clock the start is not earlier than the call plus this. The other rows are
-- the admitted requests; an owner has their payload and parameters itself.
CREATE FUNCTION claim_requests(p_provider_id text, p_worker_id text, p_capacity integer, p_lease_seconds double precision,
                               p_owner_id text DEFAULT NULL)
RETURNS TABLE (
  request_id text, lease_id text, attempt integer, max_attempts integer, workspace_id text, model_id text, model_ref text,
  payload jsonb, parameters jsonb, deadline timestamptz, started_at timestamptz, reserved_tokens integer,
  is_streamed boolean, has_fallback boolean, created_at timestamptz,
  wait_seconds double precision, send_within_seconds double precision, waited_seconds double precision,
  catalog_revision bigint, permits_left bigint
) LANGUAGE plpgsql
-- A plan made while a table was small must not scan it when it has grown. Its plans are kept: they are the same whatever
-- the values are, and planning takes longer than what is planned.
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
  v_provider llm_providers%ROWTYPE;
  v_state limit_states%ROWTYPE;
  v_called timestamptz := clock_timestamp();
  v_read timestamptz;
  v_now timestamptz;
  v_span interval;
  v_floor bigint;
  v_running bigint;
  v_permits bigint;
  v_lease text := replace(gen_random_uuid()::text, '-', '');
  v_ids text[];
  v_positions bigint[];
  v_tokens bigint;
  v_admitted bigint := 0;
  v_changed text[];
  v_expired text[];
  v_moved text[];
  v_next timestamptz;
BEGIN
  SELECT * INTO v_provider FROM llm_providers WHERE id = p_provider_id FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  SELECT * INTO v_state FROM limit_states WHERE provider_id = p_provider_id FOR UPDATE;
  v_read := clock_timestamp();
  v_now := greatest(v_read, v_state.clock);
  v_span := (v_state.window_milliseconds + v_state.delivery_milliseconds) * interval '1 millisecond';

  -- Leases that ran out, and requests that waited past their deadline.
  IF EXISTS (SELECT FROM model_requests WHERE provider_id = p_provider_id AND status = 'PROCESSING' AND lease_expires_at <= v_now) THEN
    v_changed := rescue_requests(p_provider_id, v_now);
    -- What waits again may be for others than who claims here.
    PERFORM pg_notify('tollgate_work', p_provider_id);
  END IF;
  IF EXISTS (SELECT FROM model_requests WHERE provider_id = p_provider_id AND status = 'PENDING' AND deadline <= v_now) THEN
    WITH overdue AS (
      UPDATE model_requests
         SET status = 'FAILED', finished_at = v_now,
             error = jsonb_build_object('code', 'DEADLINE_EXCEEDED', 'message', 'the deadline passed before a permit came free', 'retryable', false)
       WHERE provider_id = p_provider_id AND status = 'PENDING' AND deadline <= v_now
      RETURNING id
    )
    SELECT array_agg(id) INTO v_expired FROM overdue;
  END IF;
  -- Requests whose clients waited at a process that is gone.
  IF EXISTS (SELECT FROM model_requests r WHERE provider_id = p_provider_id AND status = 'PENDING' AND owner_id IS NOT NULL
                AND NOT EXISTS (SELECT FROM owner_processes o WHERE o.id = r.owner_id AND o.expires_at > v_now)) THEN
    WITH abandoned AS (
      UPDATE model_requests r
         SET status = 'FAILED', finished_at = v_now,
             error = jsonb_build_object('code', 'LEASE_LOST', 'message', 'the process that its client waited at is gone', 'retryable', false)
       WHERE provider_id = p_provider_id AND status = 'PENDING' AND owner_id IS NOT NULL
         AND NOT EXISTS (SELECT FROM owner_processes o WHERE o.id = r.owner_id AND o.expires_at > v_now)
      RETURNING id
    )
    SELECT v_expired || array_agg(id) INTO v_expired FROM abandoned;
  END IF;

  -- While the provider is not to be called, requests need not wait for it that have another model left.
  IF (v_state.circuit_open_until > v_now OR NOT v_provider.is_enabled) AND EXISTS (
       SELECT FROM model_requests WHERE provider_id = p_provider_id AND status = 'PENDING' AND fallback_model_ids <> '{}') THEN
    v_moved := divert_requests(p_provider_id, v_now);
  END IF;

  -- Starts that have left the window. Each is passed over once in its life.
  SELECT s.sequence - 1 INTO v_floor FROM provider_starts s
   WHERE s.provider_id = p_provider_id AND s.sequence > v_state.floor_sequence AND s.started_at > v_now - v_span
   ORDER BY s.sequence LIMIT 1;
  v_floor := coalesce(v_floor, v_state.last_sequence);
  IF v_floor > v_state.floor_sequence THEN
    SELECT v_state.window_tokens - coalesce(sum(coalesce(s.settled_tokens, s.reserved_tokens)), 0) INTO v_state.window_tokens
      FROM provider_starts s
     WHERE s.provider_id = p_provider_id AND s.sequence > v_state.floor_sequence AND s.sequence <= v_floor;
  END IF;

  SELECT count(*) INTO v_running FROM model_requests WHERE provider_id = p_provider_id AND status = 'PROCESSING';
  v_permits := least(v_provider.max_parallel_requests - v_running,
                     v_provider.requests_per_minute - (v_state.last_sequence - v_floor));
  IF v_state.circuit_open_until > v_now OR NOT v_provider.is_enabled THEN
    v_permits := 0;
  ELSIF v_state.circuit_open_until IS NOT NULL THEN
    -- Half open: one call at a time finds out.
    v_permits := least(v_permits, 1 - v_running);
  END IF;

  IF v_permits > 0 AND p_capacity > 0 THEN
    -- The longest prefix of the queue that fits: a large request at the head is not overtaken by small ones. One that
    -- can never fit (the limit was lowered after it came) is passed over until the limit rises or its deadline comes.
    WITH mine AS MATERIALIZED (
      SELECT id, reserved_tokens, priority, sequence FROM model_requests
       WHERE p_owner_id IS NULL AND owner_id IS NULL AND provider_id = p_provider_id AND status = 'PENDING' AND available_at <= v_now
         AND (v_provider.tokens_per_minute IS NULL OR reserved_tokens <= v_provider.tokens_per_minute)
       ORDER BY priority DESC, sequence LIMIT least(v_permits, p_capacity) FOR UPDATE SKIP LOCKED
    ), owned AS MATERIALIZED (
      SELECT id, reserved_tokens, priority, sequence, owner_id FROM model_requests
       WHERE owner_id IS NOT NULL AND provider_id = p_provider_id AND status = 'PENDING' AND available_at <= v_now
         AND (v_provider.tokens_per_minute IS NULL OR reserved_tokens <= v_provider.tokens_per_minute)
       ORDER BY priority DESC, sequence LIMIT least(v_permits, 2000) FOR UPDATE SKIP LOCKED
    ), unowned AS MATERIALIZED (
      SELECT id, reserved_tokens, priority, sequence FROM model_requests
       WHERE p_owner_id IS NOT NULL AND owner_id IS NULL AND provider_id = p_provider_id AND status = 'PENDING' AND available_at <= v_now
         AND (v_provider.tokens_per_minute IS NULL OR reserved_tokens <= v_provider.tokens_per_minute)
       ORDER BY priority DESC, sequence LIMIT least(v_permits, 2000)
    ), ordered AS (
      SELECT id, is_mine, reserved_tokens, row_number() OVER queue AS position, sum(reserved_tokens) OVER queue AS total
        FROM (SELECT id, reserved_tokens, priority, sequence, true AS is_mine FROM mine
              UNION ALL SELECT id, reserved_tokens, priority, sequence, owner_id IS NOT DISTINCT FROM p_owner_id FROM owned
              UNION ALL SELECT id, reserved_tokens, priority, sequence, false FROM unowned) waiting
      WINDOW queue AS (ORDER BY priority DESC, sequence ROWS UNBOUNDED PRECEDING)
    ), admitted AS (
      SELECT id, reserved_tokens, row_number() OVER (ORDER BY position) AS position FROM ordered
       WHERE is_mine AND position <= v_permits
         AND (v_provider.tokens_per_minute IS NULL OR total <= v_provider.tokens_per_minute - v_state.window_tokens)
       ORDER BY position LIMIT p_capacity
    )
    SELECT array_agg(id ORDER BY position), array_agg(position ORDER BY position), sum(reserved_tokens)
      INTO v_ids, v_positions, v_tokens FROM admitted;
  END IF;

  IF v_ids IS NOT NULL THEN
    v_admitted := array_length(v_ids, 1);
    INSERT INTO provider_starts (provider_id, sequence, request_id, lease_id, started_at, reserved_tokens)
    SELECT p_provider_id, v_state.last_sequence + a.position, r.id, v_lease, v_now, r.reserved_tokens
      FROM unnest(v_ids, v_positions) AS a(id, position) JOIN model_requests r ON r.id = a.id;
    RETURN QUERY
      UPDATE model_requests r
         SET status = 'PROCESSING', lease_id = v_lease, worker_id = p_worker_id, attempt_count = r.attempt_count + 1,
             lease_started_at = v_now, lease_expires_at = v_now + p_lease_seconds * interval '1 second',
             start_sequence = v_state.last_sequence + a.position, started_at = coalesce(r.started_at, v_now)
        FROM unnest(v_ids, v_positions) AS a(id, position)
       WHERE r.id = a.id
      RETURNING r.id, r.lease_id, r.attempt_count, r.max_attempts, r.workspace_id, r.model_id, r.model_ref,
                CASE WHEN p_owner_id IS NULL THEN r.payload END, CASE WHEN p_owner_id IS NULL THEN r.parameters END,
                r.deadline, r.lease_started_at, r.reserved_tokens, r.is_streamed, cardinality(r.fallback_model_ids) > 0, r.created_at,
                NULL::double precision, NULL::double precision, NULL::double precision, NULL::bigint, NULL::bigint;
    -- What was submitted in this very transaction nobody can have heard of yet.
    v_changed := v_changed || CASE WHEN p_owner_id IS NULL THEN v_ids ELSE ARRAY(
      SELECT r.id FROM model_requests r WHERE r.id = ANY (v_ids) AND r.created_at <> transaction_timestamp()) END;
  END IF;

  v_state.last_sequence := v_state.last_sequence + v_admitted;
  UPDATE limit_states
     SET last_sequence = v_state.last_sequence, floor_sequence = v_floor, clock = v_now,
         window_tokens = v_state.window_tokens + coalesce(v_tokens, 0)
   WHERE provider_id = p_provider_id;

  v_changed := v_changed || v_expired || v_moved;
  IF cardinality(v_changed) > 0 THEN
    PERFORM announce_requests(v_changed);
  END IF;

  -- The next moment at which something can have changed by time alone.
  IF v_provider.is_enabled AND (EXISTS (
       SELECT FROM model_requests WHERE provider_id = p_provider_id AND status = 'PENDING' AND owner_id IS NULL AND available_at <= v_now
          AND (v_provider.tokens_per_minute IS NULL OR reserved_tokens <= v_provider.tokens_per_minute)) OR EXISTS (
       SELECT FROM model_requests WHERE provider_id = p_provider_id AND status = 'PENDING' AND owner_id IS NOT NULL AND available_at <= v_now
          AND (v_provider.tokens_per_minute IS NULL OR reserved_tokens <= v_provider.tokens_per_minute))) THEN
    IF v_state.circuit_open_until > v_now THEN
      v_next := v_state.circuit_open_until;
    ELSIF v_running + v_admitted < v_provider.max_parallel_requests THEN
      SELECT s.started_at + v_span INTO v_next FROM provider_starts s
       WHERE s.provider_id = p_provider_id AND s.sequence > v_floor
         AND (v_state.last_sequence - v_floor >= v_provider.requests_per_minute OR coalesce(s.settled_tokens, s.reserved_tokens) > 0)
       ORDER BY s.sequence LIMIT 1;
    END IF;
  END IF;
  v_next := least(
    v_next,
    (SELECT min(lease_expires_at) FROM model_requests WHERE provider_id = p_provider_id AND status = 'PROCESSING'),
    (SELECT min(available_at) FROM model_requests
      WHERE provider_id = p_provider_id AND status = 'PENDING' AND attempt_count > 0 AND available_at > v_now),
    (SELECT min(deadline) FROM model_requests
      WHERE provider_id = p_provider_id AND status = 'PENDING' AND deadline IS NOT NULL AND deadline > v_now));
  RETURN QUERY SELECT NULL::text, NULL::text, NULL::integer, NULL::integer, NULL::text, NULL::text, NULL::text, NULL::jsonb, NULL::jsonb,
    NULL::timestamptz, v_now, NULL::integer, NULL::boolean, NULL::boolean, NULL::timestamptz,
    CASE WHEN v_next IS NOT NULL THEN greatest(0, extract(epoch FROM v_next - clock_timestamp())) END::double precision, -- greatest() passes over a null
    (v_state.delivery_milliseconds / 1000.0)::double precision,
    extract(epoch FROM v_read - v_called)::double precision,
    (SELECT number FROM revisions WHERE subject = 'catalog'),
    greatest(0, v_permits - v_admitted);
END $$;

-- Submits the requests of a process whose clients wait at it, and claims for it what their providers permit now: both in
-- one statement, and one commit. p_requests is an array of rows. Each row returned names the provider it is about.
CREATE FUNCTION submit_and_claim(p_requests jsonb, p_owner_id text, p_capacity integer, p_lease_seconds double precision)
RETURNS TABLE (
  provider_id text, request_id text, lease_id text, attempt integer, max_attempts integer, workspace_id text, model_id text,
  model_ref text, payload jsonb, parameters jsonb, deadline timestamptz, started_at timestamptz, reserved_tokens integer,
  is_streamed boolean, has_fallback boolean, created_at timestamptz,
  wait_seconds double precision, send_within_seconds double precision, waited_seconds double precision,
  catalog_revision bigint, permits_left bigint
) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE v_provider text;
BEGIN
  INSERT INTO model_requests (id, workspace_id, provider_id, model_id, model_ref, operation, priority, idempotency_key,
                              request_digest, deadline, owner_id, is_streamed, fallback_model_ids, payload, parameters,
                              metadata, reserved_tokens, max_attempts, created_by)
  SELECT x.id, x.workspace_id, x.provider_id, x.model_id, x.model_ref, x.operation, x.priority, x.idempotency_key,
         x.request_digest, x.deadline, p_owner_id, x.is_streamed, string_to_array(x.fallbacks, ' '), x.payload, x.parameters,
         x.metadata, x.reserved_tokens, x.max_attempts, x.created_by
    FROM jsonb_to_recordset(p_requests) AS x(
      id text, workspace_id text, provider_id text, model_id text, model_ref text, operation "ModelOperation", priority integer,
      idempotency_key text, request_digest text, deadline timestamptz, is_streamed boolean, fallbacks text, payload jsonb,
      parameters jsonb, metadata jsonb, reserved_tokens integer, max_attempts integer, created_by text);
  -- In one order, as every claim of several providers must.
  FOR v_provider IN SELECT DISTINCT x ->> 'provider_id' AS id FROM jsonb_array_elements(p_requests) AS x ORDER BY id LOOP
    RETURN QUERY SELECT v_provider, c.* FROM claim_requests(v_provider, p_owner_id, p_capacity, p_lease_seconds, p_owner_id) AS c;
  END LOOP;
END $$;

-- Extends the leases that the worker still holds; one that is missing from the answer is lost. Leases run on the
-- provider's monotonic clock, as the rescue does: were the database's own clock set back, renewed leases would else
-- seem expired. Rows are locked in one order, as finish_requests does.
CREATE FUNCTION renew_leases(p_request_ids text[], p_lease_ids text[], p_lease_seconds double precision)
RETURNS TABLE (request_id text, lease_id text, cancel_requested boolean) LANGUAGE sql SET enable_seqscan = off AS $$
  WITH held AS MATERIALIZED (
    SELECT r.id, greatest(clock_timestamp(), (SELECT t.clock FROM limit_states t WHERE t.provider_id = r.provider_id)) AS now
      FROM unnest(p_request_ids, p_lease_ids) AS asked(request_id, lease_id)
      JOIN model_requests r ON r.id = asked.request_id AND r.lease_id = asked.lease_id AND r.status = 'PROCESSING'
     ORDER BY r.id FOR UPDATE OF r
  )
  UPDATE model_requests r SET lease_expires_at = held.now + p_lease_seconds * interval '1 second'
    FROM held WHERE r.id = held.id AND r.lease_expires_at > held.now
  RETURNING r.id, r.lease_id, r.cancel_requested_at IS NOT NULL
$$;

-- Counts a provider's failures: after five in a row its circuit opens, for half a minute at first, twice as long each
-- time its probe fails, up to eight minutes. A success closes it. The caller holds the lock of the limit state.
CREATE FUNCTION record_outcomes(p_provider_id text, p_failures bigint, p_has_success boolean, p_now timestamptz)
RETURNS void LANGUAGE sql AS $$
  UPDATE limit_states
     SET consecutive_failures = CASE WHEN p_has_success THEN 0 ELSE consecutive_failures + p_failures END,
         circuit_openings = CASE WHEN p_has_success THEN 0
                                 WHEN consecutive_failures + p_failures >= 5 AND coalesce(circuit_open_until, p_now) <= p_now
                                 THEN circuit_openings + 1 ELSE circuit_openings END,
         circuit_open_until = CASE WHEN p_has_success THEN NULL
                                   WHEN consecutive_failures + p_failures >= 5 AND coalesce(circuit_open_until, p_now) <= p_now
                                   THEN p_now + interval '30 seconds' * 2 ^ least(circuit_openings, 4)
                                   ELSE circuit_open_until END
   WHERE provider_id = p_provider_id
     AND CASE WHEN p_has_success THEN consecutive_failures > 0 OR circuit_open_until IS NOT NULL ELSE p_failures > 0 END
$$;

-- Ends attempts: state, attempt, ledger lines and settlement of the limits, in the caller's transaction.
--
-- p_results is an array of {request_id, lease_id, outcome, ...}, outcome one of COMPLETED, FAILED, CANCELLED, RETRY
-- (waits for retry_seconds), FALLBACK (goes on with the next usable model of its list, with attempts_more attempts; FAILED
-- where there is none) and RELEASED (given back unsent: no attempt spent). provider_fault says that the failure was the
-- provider's. p_lines is an array of ledger lines. A result whose lease is no longer held changes nothing and is missing
-- from the answer.
CREATE FUNCTION finish_requests(p_results jsonb, p_lines jsonb) RETURNS TABLE (request_id text, status "ModelRequestStatus")
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
  v_now timestamptz;
  v_changed text[] := ARRAY(SELECT x ->> 'request_id' FROM jsonb_array_elements(p_results) AS x);
  v_providers text[];
  v_outcome record;
BEGIN
  -- The limit states are locked before any request, in one order, as claim_requests does.
  SELECT array_agg(DISTINCT r.provider_id) INTO v_providers FROM model_requests r WHERE r.id = ANY (v_changed);
  PERFORM FROM limit_states WHERE provider_id = ANY (v_providers) ORDER BY provider_id FOR UPDATE;
  SELECT greatest(clock_timestamp(), max(clock)) INTO v_now FROM limit_states WHERE provider_id = ANY (v_providers);
  v_now := coalesce(v_now, clock_timestamp());

  -- Of results whose leases are held; the finish below holds the same, since both hold the limit states.
  FOR v_outcome IN
    SELECT r.provider_id, count(*) FILTER (WHERE x.provider_fault) AS failures,
           bool_or(x.outcome = 'COMPLETED') AS has_success
      FROM jsonb_to_recordset(p_results) AS x(request_id text, lease_id text, outcome text, provider_fault boolean)
      JOIN model_requests r ON r.id = x.request_id AND r.lease_id = x.lease_id AND r.status = 'PROCESSING'
     GROUP BY r.provider_id
    -- A success after none but successes changes nothing.
    HAVING bool_or(x.provider_fault) OR EXISTS (
      SELECT FROM limit_states t
       WHERE t.provider_id = r.provider_id AND (t.consecutive_failures > 0 OR t.circuit_open_until IS NOT NULL))
  LOOP
    PERFORM record_outcomes(v_outcome.provider_id, v_outcome.failures, v_outcome.has_success, v_now);
  END LOOP;

  RETURN QUERY
  WITH results AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(p_results) AS x(
      request_id text, lease_id text, outcome text, retry_seconds double precision, attempts_more integer, settled_tokens integer,
      output jsonb, output_text text, input_tokens integer, output_tokens integer, cache_read_tokens integer,
      cache_write_tokens integer, reasoning_tokens integer, images integer, characters integer, seconds numeric,
      searches integer, usage_estimated boolean, cost_total numeric, currency text, error jsonb, first_chunk_seconds double precision,
      response_model text, provider_request_id text, finish_reason text, http_status integer)
  ), held AS MATERIALIZED (
    SELECT r.id, r.provider_id, r.model_ref, r.attempt_count, r.worker_id, r.lease_started_at, r.start_sequence,
           r.cancel_requested_at, r.fallback_model_ids, r.reserved_tokens, r.workspace_id, x.*
      FROM results x JOIN model_requests r ON r.id = x.request_id AND r.lease_id = x.lease_id AND r.status = 'PROCESSING'
     ORDER BY r.id FOR UPDATE OF r
  ), decided AS MATERIALIZED (
    SELECT h.*, n.model_id AS next_model_id, n.provider_id AS next_provider_id, n.model_ref AS next_model_ref, n.rest AS next_fallbacks,
           CASE WHEN h.outcome NOT IN ('RETRY', 'RELEASED', 'FALLBACK') THEN h.outcome
                WHEN h.cancel_requested_at IS NOT NULL THEN 'CANCELLED'
                WHEN h.outcome = 'FALLBACK' AND n.model_id IS NULL THEN 'FAILED'
                ELSE 'PENDING' END::"ModelRequestStatus" AS new_status
      FROM held h LEFT JOIN LATERAL next_fallback(
        CASE WHEN h.outcome = 'FALLBACK' THEN h.fallback_model_ids END, h.reserved_tokens, v_now, NULL) n ON true
  ), attempted AS (
    INSERT INTO request_attempts (request_id, number, lease_id, worker_id, status, model_ref, started_at, first_chunk_at, finished_at,
                                  response_model, provider_request_id, finish_reason, http_status, error)
    SELECT id, attempt_count, lease_id, worker_id,
           CASE outcome WHEN 'COMPLETED' THEN 'SUCCEEDED' WHEN 'RETRY' THEN 'FAILED' WHEN 'FALLBACK' THEN 'FAILED'
                        ELSE outcome END::"RequestAttemptStatus",
           model_ref, lease_started_at, lease_started_at + first_chunk_seconds * interval '1 second', v_now, response_model,
           provider_request_id, finish_reason, http_status, error
      FROM decided
  ), charged AS (
    INSERT INTO ledger_entries (workspace_id, request_id, lease_id, model_ref, unit, quantity, price_id, price_per_million,
                                amount, currency, is_estimated, charged_at)
    SELECT h.workspace_id, l.request_id, l.lease_id, h.model_ref, l.unit, l.quantity, l.price_id, l.price_per_million,
           l.amount, l.currency, l.is_estimated, v_now
      FROM jsonb_to_recordset(p_lines) AS l(request_id text, lease_id text, unit "UsageUnit", quantity numeric, price_id text,
                                            price_per_million numeric, amount numeric, currency text, is_estimated boolean)
      JOIN held h ON h.request_id = l.request_id AND h.lease_id = l.lease_id
  ), settled AS (
    UPDATE provider_starts s SET settled_tokens = h.settled_tokens, ended_at = v_now
      FROM held h WHERE s.provider_id = h.provider_id AND s.sequence = h.start_sequence
    RETURNING s.provider_id, s.sequence, h.settled_tokens - s.reserved_tokens AS change
  ), released AS (
    UPDATE limit_states t SET window_tokens = t.window_tokens + coalesce(c.change, 0), clock = v_now
      FROM (SELECT s.provider_id, sum(s.change) FILTER (WHERE s.sequence > t.floor_sequence) AS change
              FROM settled s JOIN limit_states t ON t.provider_id = s.provider_id GROUP BY s.provider_id) c
     WHERE t.provider_id = c.provider_id
  ), emptied AS (
    DELETE FROM request_chunks c USING held h WHERE c.request_id = h.id
  )
  UPDATE model_requests r
     SET status = h.new_status,
         output = h.output, output_text = h.output_text, input_tokens = h.input_tokens, output_tokens = h.output_tokens,
         cache_read_tokens = h.cache_read_tokens, cache_write_tokens = h.cache_write_tokens,
         reasoning_tokens = h.reasoning_tokens, images = h.images, characters = h.characters, seconds = h.seconds,
         searches = h.searches, usage_estimated = h.usage_estimated, cost_total = h.cost_total, currency = h.currency,
         error = CASE WHEN h.new_status = 'FAILED' THEN h.error END,
         model_id = coalesce(h.next_model_id, r.model_id), provider_id = coalesce(h.next_provider_id, r.provider_id),
         model_ref = coalesce(h.next_model_ref, r.model_ref),
         fallback_model_ids = CASE WHEN h.next_model_id IS NULL THEN r.fallback_model_ids ELSE h.next_fallbacks END,
         max_attempts = CASE WHEN h.next_model_id IS NULL THEN r.max_attempts ELSE r.attempt_count + coalesce(h.attempts_more, 1) END,
         attempt_count = r.attempt_count - CASE WHEN h.outcome = 'RELEASED' THEN 1 ELSE 0 END,
         available_at = CASE WHEN h.new_status = 'PENDING' THEN v_now + coalesce(h.retry_seconds, 0) * interval '1 second' ELSE r.available_at END,
         finished_at = CASE WHEN h.new_status <> 'PENDING' THEN v_now END,
         lease_id = NULL, lease_expires_at = NULL, lease_started_at = NULL, worker_id = NULL, start_sequence = NULL
    FROM decided h WHERE r.id = h.id
  RETURNING r.id, r.status;

  PERFORM announce_requests(v_changed);
  -- A request that went on to another provider waits there.
  PERFORM pg_notify('tollgate_work', p.id)
     FROM (SELECT provider_id AS id FROM model_requests WHERE id = ANY (v_changed) AND status = 'PENDING'
           UNION SELECT unnest(v_providers)) p
    WHERE EXISTS (SELECT FROM model_requests WHERE provider_id = p.id AND status = 'PENDING' AND owner_id IS NULL)
       OR EXISTS (SELECT FROM model_requests WHERE provider_id = p.id AND status = 'PENDING' AND owner_id IS NOT NULL);
END $$;

-- Cancels a waiting request at once, and asks the worker of a running one to stop. Answers the status it now has,
-- null where there is no such request.
CREATE FUNCTION cancel_request(p_workspace_id text, p_request_id text) RETURNS "ModelRequestStatus" LANGUAGE plpgsql AS $$
DECLARE
  v_status "ModelRequestStatus";
  v_provider text;
BEGIN
  SELECT status, provider_id INTO v_status, v_provider FROM model_requests
   WHERE id = p_request_id AND workspace_id = p_workspace_id FOR UPDATE;
  IF v_status = 'PENDING' THEN
    UPDATE model_requests SET status = 'CANCELLED', finished_at = clock_timestamp() WHERE id = p_request_id
    RETURNING status INTO v_status;
    PERFORM announce_requests(ARRAY[p_request_id]);
    -- Permits may have been left to it: those behind it can take them now.
    IF EXISTS (SELECT FROM model_requests WHERE provider_id = v_provider AND status = 'PENDING' AND owner_id IS NULL)
       OR EXISTS (SELECT FROM model_requests WHERE provider_id = v_provider AND status = 'PENDING' AND owner_id IS NOT NULL) THEN
      PERFORM pg_notify('tollgate_work', v_provider);
    END IF;
  ELSIF v_status = 'PROCESSING' THEN
    UPDATE model_requests SET cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp()) WHERE id = p_request_id;
    PERFORM pg_notify('tollgate_cancel', p_request_id);
  END IF;
  RETURN v_status;
END $$;
