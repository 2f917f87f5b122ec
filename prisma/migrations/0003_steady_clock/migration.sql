-- The steady clock
--
-- Windows and leases are spans of time. The server's clock can be stepped while they run: by an operator, by NTP, by a
-- failover to a machine whose clock differs. So they are measured on a clock of their own, that of the server less
-- what it was stepped by. What tells a step from time that passed are the clocks of the machines on which Tollgate runs,
-- which count since their start and are never set. Deadlines, and what is told of a call (when it started, ended, was
-- charged), go by the server's clock as it stands.

-- CreateTable
CREATE TABLE "steady_clock" (
    "id" INTEGER NOT NULL DEFAULT 1,
    "epoch" INTEGER NOT NULL DEFAULT 1,
    "behind_microseconds" BIGINT NOT NULL DEFAULT 0,
    "witnessed_at" TIMESTAMPTZ(6),

    CONSTRAINT "steady_clock_pkey" PRIMARY KEY ("id")
);

CREATE TABLE "clock_witnesses" (
    "machine_id" TEXT NOT NULL,
    "epoch" INTEGER NOT NULL,
    "offset_microseconds" BIGINT NOT NULL,
    "witnessed_at" TIMESTAMPTZ(6) NOT NULL,

    CONSTRAINT "clock_witnesses_pkey" PRIMARY KEY ("machine_id")
);

-- AlterTable
-- A new request may start at once, whatever the clocks say.
ALTER TABLE "model_requests" ALTER COLUMN "available_at" SET DEFAULT '1970-01-01 00:00:00+00';

-- ---------------------------------------------------------------------------
-- What Prisma cannot express
-- ---------------------------------------------------------------------------

ALTER TABLE "steady_clock" ADD CONSTRAINT "steady_clock_is_one_row" CHECK ("id" = 1);
INSERT INTO "steady_clock" DEFAULT VALUES;

-- What the steady clock may say: what it was told to be, and nothing further than 50 ms from what the machine that asks
-- expects. A machine knows the steady clock within 50 ms: so nobody is ever more than 100 ms wrong, whatever the
-- server's clock has done.
CREATE FUNCTION within_expectation(p_told timestamptz, p_expected timestamptz) RETURNS timestamptz LANGUAGE sql STABLE AS $$
  SELECT greatest(least(p_told, p_expected + interval '50 milliseconds'), p_expected - interval '50 milliseconds')
$$;

-- The steady clock. p_expected is what the machine that asks expects it to be, known since p_epoch.
CREATE FUNCTION steady_now(p_epoch integer DEFAULT NULL, p_expected timestamptz DEFAULT NULL) RETURNS timestamptz LANGUAGE sql AS $$
  SELECT within_expectation(clock_timestamp() - behind_microseconds * interval '1 microsecond', CASE WHEN epoch = p_epoch THEN p_expected END)
    FROM steady_clock
$$;

-- An instant of the steady clock on the server's clock as it stands.
CREATE FUNCTION server_time(p_steady timestamptz) RETURNS timestamptz LANGUAGE sql STABLE AS $$
  SELECT p_steady + behind_microseconds * interval '1 microsecond' FROM steady_clock
$$;

-- A machine says what it has measured: how far the steady clock is ahead of its own, good to 50 ms, while it was in
-- p_epoch and behind by p_behind_microseconds. Answers the epoch and the offset that the machine is to go by from now on;
-- no row where the clock was set since, to measure anew: of two who measured the same step, one tells it.
--
-- The machine is named for one run of its kernel: a restart may have taken any time, and its own clock begins anew. So
-- what it says first begins an epoch, in which the steady clock goes on from the latest moment that was witnessed. But
-- where no window and no lease is under way, any time may have passed: then it is set by the server's.
CREATE FUNCTION witness_clock(p_machine_id text, p_epoch integer, p_behind_microseconds bigint, p_offset_microseconds bigint,
                              p_machine_microseconds bigint)
RETURNS TABLE (epoch integer, offset_microseconds bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  v_clock steady_clock%ROWTYPE;
  v_witness clock_witnesses%ROWTYPE;
  v_now timestamptz;
  v_last timestamptz;
  v_behind bigint;
  v_offset bigint := p_offset_microseconds;
  v_step bigint;
  v_drift bigint;
BEGIN
  SELECT * INTO v_clock FROM steady_clock FOR UPDATE;
  IF (v_clock.epoch, v_clock.behind_microseconds) IS DISTINCT FROM (p_epoch, p_behind_microseconds) THEN
    RETURN;
  END IF;
  v_now := timestamptz 'epoch' + (p_machine_microseconds + v_offset) * interval '1 microsecond';
  SELECT * INTO v_witness FROM clock_witnesses WHERE machine_id = p_machine_id;
  IF v_witness.machine_id IS NULL THEN
    -- Claims that are under way go by the clock of before: their starts are waited for.
    PERFORM FROM limit_states ORDER BY provider_id FOR UPDATE;
    SELECT coalesce(v_clock.witnessed_at, max(t.clock) FILTER (WHERE t.last_sequence > 0), v_now) INTO v_last FROM limit_states t;
    v_behind := v_clock.behind_microseconds + extract(epoch FROM v_now - v_last) * 1000000;
    IF NOT EXISTS (SELECT FROM model_requests WHERE status = 'PROCESSING') AND NOT EXISTS (
         SELECT FROM limit_states t JOIN provider_starts s ON s.provider_id = t.provider_id AND s.sequence = t.last_sequence
          WHERE s.started_at > v_last - (t.window_milliseconds + t.delivery_milliseconds) * interval '1 millisecond') THEN
      -- Never back: what is to come after was measured on it. Who lives goes on to do so.
      v_step := greatest(v_behind, 0);
      v_behind := v_behind - v_step;
      UPDATE owner_processes SET expires_at = expires_at + v_step * interval '1 microsecond';
    END IF;
    v_offset := v_offset + v_clock.behind_microseconds - v_behind;
    v_clock.behind_microseconds := v_behind;
    v_clock.epoch := v_clock.epoch + 1;
    DELETE FROM clock_witnesses WHERE witnessed_at < v_last - interval '1 day';
  ELSIF v_witness.epoch = v_clock.epoch THEN
    -- Clocks drift, by a thousandth at most: what is more, and more than two measurements can differ by, is a step.
    v_drift := abs(extract(epoch FROM v_now - v_witness.witnessed_at) * 1000);
    v_step := v_offset - v_witness.offset_microseconds;
    IF abs(v_step) > v_drift + 100000 THEN
      -- The server's clock was stepped: the steady clock goes on as this machine knows it.
      v_clock.behind_microseconds := v_clock.behind_microseconds + v_step;
      v_offset := v_witness.offset_microseconds;
    ELSE
      v_offset := v_witness.offset_microseconds + greatest(least(v_step, v_drift), -v_drift);
    END IF;
  END IF;
  v_now := timestamptz 'epoch' + (p_machine_microseconds + v_offset) * interval '1 microsecond';
  UPDATE steady_clock SET epoch = v_clock.epoch, behind_microseconds = v_clock.behind_microseconds,
                          witnessed_at = greatest(witnessed_at, v_now);
  INSERT INTO clock_witnesses (machine_id, epoch, offset_microseconds, witnessed_at)
  VALUES (p_machine_id, v_clock.epoch, v_offset, v_now)
  ON CONFLICT (machine_id) DO UPDATE
     SET epoch = excluded.epoch, offset_microseconds = excluded.offset_microseconds, witnessed_at = excluded.witnessed_at;
  RETURN QUERY SELECT v_clock.epoch, v_offset;
END $$;

-- A new provider's clock never was anywhere: the server's may have been stepped just now, and nobody has told of it yet.
CREATE OR REPLACE FUNCTION create_limit_state() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO "limit_states" ("provider_id", "clock") VALUES (NEW."id", 'epoch');
  RETURN NULL;
END $$;

-- ---------------------------------------------------------------------------
-- The functions of 0002 on the steady clock
-- ---------------------------------------------------------------------------
-- Their new parameters can be left out, as processes of before do that still run.

DROP FUNCTION claim_requests(text, text, integer, double precision, text);
DROP FUNCTION submit_and_claim(jsonb, text, integer, double precision);
DROP FUNCTION rescue_requests(text, timestamptz);
DROP FUNCTION renew_leases(text[], text[], double precision);
DROP FUNCTION finish_requests(jsonb, jsonb);

-- Takes back what expired leases held: the request waits again, or ends where its attempts are spent, its caller has
-- cancelled it, or the process that its client waited at is gone. The caller holds the provider's lock. p_now is of the
-- steady clock, p_wall the same instant on the server's.
CREATE FUNCTION rescue_requests(p_provider_id text, p_now timestamptz, p_wall timestamptz) RETURNS text[] LANGUAGE plpgsql
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
    SELECT id, attempt_count, lease_id, worker_id, 'LOST', model_ref, lease_started_at, greatest(p_wall, lease_started_at),
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
           finished_at = CASE WHEN e.new_status <> 'PENDING' THEN greatest(p_wall, r.started_at) END,
           available_at = p_now,
           lease_id = NULL, lease_expires_at = NULL, lease_started_at = NULL, worker_id = NULL, start_sequence = NULL
      FROM expired e WHERE r.id = e.id
    RETURNING r.id
  )
  SELECT array_agg(id) INTO v_ids FROM moved;
  RETURN v_ids;
END $$;

-- Admits the requests of one provider that its limits permit now, and leases them to a process.
--
-- The provider's row is locked first; the clock is read and starts are counted in later statements, whose snapshots
-- see every start committed before (a count in the statement that locks does not, and admits too many). A start
-- stays counted for the window and delivery_milliseconds more, since a call arrives at the provider after its start.
--
-- A worker claims what has no owner (p_owner_id null), a process whose clients wait at it what it owns. There is one
-- queue all the same: permits that belong to others further ahead are left to them. p_requests are rows to be submitted
-- first, of this owner; those of other providers in it are passed over.
--
-- p_expected is what the caller's machine expects the steady clock to be when it calls, known since p_epoch.
--
-- One of the rows returned has no request_id: wait_seconds says when the next claim can be of use (null: only a
-- notification can make it so), send_within_seconds how long a start's permit holds, and waited_seconds how long the
-- claim waited for the lock: on the caller's clock the start is not earlier than the call plus this. The other rows are
-- the admitted requests; an owner has their payload and parameters itself.
CREATE FUNCTION claim_requests(p_provider_id text, p_worker_id text, p_capacity integer, p_lease_seconds double precision,
                               p_owner_id text DEFAULT NULL, p_epoch integer DEFAULT NULL, p_expected timestamptz DEFAULT NULL,
                               p_requests jsonb DEFAULT NULL)
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
  v_clock steady_clock%ROWTYPE;
  v_called timestamptz := clock_timestamp();
  v_read timestamptz;
  v_waited interval;
  v_behind interval;
  v_told timestamptz;
  v_sure timestamptz;
  v_now timestamptz;
  v_wall timestamptz;
  v_span interval;
  v_floor bigint;
  v_running bigint;
  v_permits bigint;
  v_has_expired boolean;
  v_has_overdue boolean;
  v_has_abandoned boolean;
  v_has_queue boolean := true;
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
    IF p_requests IS NOT NULL THEN
      RAISE foreign_key_violation USING MESSAGE = format('there is no provider %L', p_provider_id);
    END IF;
    RETURN;
  END IF;
  SELECT * INTO v_state FROM limit_states WHERE provider_id = p_provider_id FOR UPDATE;
  v_read := clock_timestamp();
  SELECT * INTO v_clock FROM steady_clock;
  v_behind := v_clock.behind_microseconds * interval '1 microsecond';
  -- By v_sure, starts leave the window and leases end; by v_now they begin. In between lies the wait for the lock, which
  -- the caller does not know. Were the clock stepped meanwhile, it would be long: what waited for longer than half a
  -- second gets a permit that has ended when it arrives.
  v_waited := least(greatest(v_read - v_called, interval '0'), interval '500 milliseconds');
  v_told := within_expectation(v_called - v_behind, CASE WHEN v_clock.epoch = p_epoch THEN p_expected END);
  v_sure := greatest(v_told, v_state.clock);
  v_now := greatest(v_told + v_waited, v_state.clock);
  -- What is told by it of a request never lies before what was told before: the server's clock may have been set back.
  v_wall := v_now + v_behind;
  v_span := (v_state.window_milliseconds + v_state.delivery_milliseconds) * interval '1 millisecond';

  -- Leases that ran out, requests that waited past their deadline, and those whose clients waited at a process that is
  -- gone, which the one that asks is not.
  SELECT EXISTS (SELECT FROM model_requests WHERE provider_id = p_provider_id AND status = 'PROCESSING' AND lease_expires_at <= v_sure),
         EXISTS (SELECT FROM model_requests WHERE provider_id = p_provider_id AND status = 'PENDING' AND deadline <= v_wall),
         EXISTS (SELECT FROM model_requests r WHERE provider_id = p_provider_id AND status = 'PENDING' AND owner_id IS NOT NULL
                    AND owner_id IS DISTINCT FROM p_owner_id AND NOT EXISTS (SELECT FROM owner_processes o WHERE o.id = r.owner_id AND o.expires_at > v_sure))
    INTO v_has_expired, v_has_overdue, v_has_abandoned;
  IF v_has_expired THEN
    v_changed := rescue_requests(p_provider_id, v_sure, v_wall);
    -- What waits again may be for others than who claims here.
    PERFORM pg_notify('tollgate_work', p_provider_id);
  END IF;

  -- Starts that have left the window. Each is passed over once in its life.
  SELECT s.sequence - 1 INTO v_floor FROM provider_starts s
   WHERE s.provider_id = p_provider_id AND s.sequence > v_state.floor_sequence AND s.started_at > v_sure - v_span
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

  -- What is submitted here where nothing waits starts as it is written.
  IF p_requests IS NOT NULL THEN
    v_has_queue := EXISTS (SELECT FROM model_requests WHERE provider_id = p_provider_id AND status = 'PENDING' AND owner_id IS NULL)
                OR EXISTS (SELECT FROM model_requests WHERE provider_id = p_provider_id AND status = 'PENDING' AND owner_id IS NOT NULL);
    RETURN QUERY
      WITH new AS MATERIALIZED (
        SELECT x.*, greatest(v_wall, transaction_timestamp()) AS begun, count(*) FILTER (WHERE f.is_fitting) OVER queue AS position,
               f.is_fitting AND NOT v_has_queue AND count(*) FILTER (WHERE f.is_fitting) OVER queue <= least(v_permits, p_capacity)
               AND (v_provider.tokens_per_minute IS NULL OR sum(x.reserved_tokens) FILTER (WHERE f.is_fitting) OVER queue
                                                            <= v_provider.tokens_per_minute - v_state.window_tokens) AS starts
          FROM ROWS FROM (jsonb_to_recordset(p_requests) AS (
                 id text, workspace_id text, provider_id text, model_id text, model_ref text, operation "ModelOperation", priority integer,
                 idempotency_key text, request_digest text, deadline timestamptz, is_streamed boolean, fallbacks text, payload jsonb,
                 parameters jsonb, metadata jsonb, reserved_tokens integer, max_attempts integer, created_by text)) WITH ORDINALITY AS x
          CROSS JOIN LATERAL (SELECT coalesce(x.deadline > v_wall, true)
                                 AND coalesce(x.reserved_tokens <= v_provider.tokens_per_minute, true) AS is_fitting) AS f
         WHERE x.provider_id = p_provider_id
        WINDOW queue AS (ORDER BY x.priority DESC, x.ordinality ROWS UNBOUNDED PRECEDING)
         ORDER BY x.ordinality
      ), written AS (
        INSERT INTO model_requests (id, workspace_id, provider_id, model_id, model_ref, operation, priority, idempotency_key,
                                    request_digest, deadline, owner_id, is_streamed, fallback_model_ids, payload, parameters,
                                    metadata, reserved_tokens, max_attempts, created_by, status, attempt_count, lease_id,
                                    worker_id, lease_started_at, lease_expires_at, start_sequence, started_at)
        SELECT n.id, n.workspace_id, n.provider_id, n.model_id, n.model_ref, n.operation, n.priority, n.idempotency_key,
               n.request_digest, n.deadline, p_owner_id, n.is_streamed, string_to_array(n.fallbacks, ' '), n.payload, n.parameters,
               n.metadata, n.reserved_tokens, n.max_attempts, n.created_by,
               CASE WHEN n.starts THEN 'PROCESSING' ELSE 'PENDING' END::"ModelRequestStatus", n.starts::integer,
               CASE WHEN n.starts THEN v_lease END, CASE WHEN n.starts THEN p_worker_id END, CASE WHEN n.starts THEN n.begun END,
               CASE WHEN n.starts THEN v_now + p_lease_seconds * interval '1 second' END,
               CASE WHEN n.starts THEN v_state.last_sequence + n.position END, CASE WHEN n.starts THEN n.begun END
          FROM new n
      ), started AS (
        INSERT INTO provider_starts (provider_id, sequence, request_id, lease_id, started_at, reserved_tokens)
        SELECT p_provider_id, v_state.last_sequence + n.position, n.id, v_lease, v_now, n.reserved_tokens FROM new n WHERE n.starts
      )
      SELECT n.id, v_lease, 1, n.max_attempts, n.workspace_id, n.model_id, n.model_ref, NULL::jsonb, NULL::jsonb, n.deadline, n.begun,
             n.reserved_tokens, n.is_streamed, n.fallbacks <> '', transaction_timestamp(),
             NULL::double precision, NULL::double precision, NULL::double precision, NULL::bigint, NULL::bigint
        FROM new n WHERE n.starts;
    GET DIAGNOSTICS v_admitted = ROW_COUNT;
    IF v_admitted > 0 THEN
      SELECT sum(s.reserved_tokens) INTO v_tokens FROM provider_starts s
       WHERE s.provider_id = p_provider_id AND s.sequence > v_state.last_sequence;
    END IF;
  END IF;

  -- What was just submitted and does not start may be overdue, or have another model left.
  IF v_has_overdue OR v_has_expired OR v_admitted < jsonb_array_length(p_requests) THEN
    WITH overdue AS (
      UPDATE model_requests
         SET status = 'FAILED', finished_at = greatest(v_wall, started_at, created_at),
             error = jsonb_build_object('code', 'DEADLINE_EXCEEDED', 'message', 'the deadline passed before a permit came free', 'retryable', false)
       WHERE provider_id = p_provider_id AND status = 'PENDING' AND deadline <= v_wall
      RETURNING id
    )
    SELECT array_agg(id) INTO v_expired FROM overdue;
  END IF;
  IF v_has_abandoned THEN
    WITH abandoned AS (
      UPDATE model_requests r
         SET status = 'FAILED', finished_at = greatest(v_wall, started_at, created_at),
             error = jsonb_build_object('code', 'LEASE_LOST', 'message', 'the process that its client waited at is gone', 'retryable', false)
       WHERE provider_id = p_provider_id AND status = 'PENDING' AND owner_id IS NOT NULL
         AND owner_id IS DISTINCT FROM p_owner_id AND NOT EXISTS (SELECT FROM owner_processes o WHERE o.id = r.owner_id AND o.expires_at > v_sure)
      RETURNING id
    )
    SELECT v_expired || array_agg(id) INTO v_expired FROM abandoned;
  END IF;

  -- While the provider is not to be called, requests need not wait for it that have another model left.
  IF (v_state.circuit_open_until > v_now OR NOT v_provider.is_enabled) AND EXISTS (
       SELECT FROM model_requests WHERE provider_id = p_provider_id AND status = 'PENDING' AND fallback_model_ids <> '{}') THEN
    v_moved := divert_requests(p_provider_id, v_now);
  END IF;

  IF v_has_queue AND v_permits > 0 AND p_capacity > 0 THEN
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
             lease_started_at = greatest(v_wall, r.created_at), lease_expires_at = v_now + p_lease_seconds * interval '1 second',
             start_sequence = v_state.last_sequence + a.position, started_at = coalesce(r.started_at, greatest(v_wall, r.created_at))
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
      WHERE provider_id = p_provider_id AND status = 'PENDING' AND deadline IS NOT NULL AND deadline > v_wall) - v_behind);
  RETURN QUERY SELECT NULL::text, NULL::text, NULL::integer, NULL::integer, NULL::text, NULL::text, NULL::text, NULL::jsonb, NULL::jsonb,
    NULL::timestamptz, v_now, NULL::integer, NULL::boolean, NULL::boolean, NULL::timestamptz,
    CASE WHEN v_next IS NOT NULL THEN greatest(0, extract(epoch FROM v_next - v_told) - extract(epoch FROM clock_timestamp() - v_called))
    END::double precision, -- greatest() passes over a null
    -- Nobody is more than 100 ms wrong about the clock.
    (greatest(v_state.delivery_milliseconds - 100, 0) / 1000.0)::double precision,
    extract(epoch FROM v_waited)::double precision,
    (SELECT number FROM revisions WHERE subject = 'catalog'),
    greatest(0, v_permits - v_admitted);
END $$;

-- Submits the requests of a process whose clients wait at it, and claims for it what their providers permit now: both in
-- one statement, and one commit. p_requests is an array of rows. Each row returned names the provider it is about.
CREATE FUNCTION submit_and_claim(p_requests jsonb, p_owner_id text, p_capacity integer, p_lease_seconds double precision,
                                 p_epoch integer DEFAULT NULL, p_expected timestamptz DEFAULT NULL)
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
  -- In one order, as every claim of several providers must.
  FOR v_provider IN SELECT DISTINCT x ->> 'provider_id' AS id FROM jsonb_array_elements(p_requests) AS x ORDER BY id LOOP
    RETURN QUERY SELECT v_provider, c.* FROM claim_requests(v_provider, p_owner_id, p_capacity, p_lease_seconds, p_owner_id, p_epoch, p_expected, p_requests) AS c;
  END LOOP;
END $$;

-- Extends the leases that the worker still holds; one that is missing from the answer is lost. Rows are locked in one
-- order, as finish_requests does.
CREATE FUNCTION renew_leases(p_request_ids text[], p_lease_ids text[], p_lease_seconds double precision,
                             p_epoch integer DEFAULT NULL, p_expected timestamptz DEFAULT NULL)
RETURNS TABLE (request_id text, lease_id text, cancel_requested boolean) LANGUAGE sql SET enable_seqscan = off AS $$
  WITH clock AS MATERIALIZED (SELECT steady_now(p_epoch, p_expected) AS now), held AS MATERIALIZED (
    SELECT r.id, greatest(clock.now, (SELECT t.clock FROM limit_states t WHERE t.provider_id = r.provider_id)) AS now
      FROM unnest(p_request_ids, p_lease_ids) AS asked(request_id, lease_id)
      JOIN model_requests r ON r.id = asked.request_id AND r.lease_id = asked.lease_id AND r.status = 'PROCESSING'
      CROSS JOIN clock
     ORDER BY r.id FOR UPDATE OF r
  )
  UPDATE model_requests r SET lease_expires_at = held.now + p_lease_seconds * interval '1 second'
    FROM held WHERE r.id = held.id AND r.lease_expires_at > held.now
  RETURNING r.id, r.lease_id, r.cancel_requested_at IS NOT NULL
$$;

-- Ends attempts: state, attempt, ledger lines and settlement of the limits, in the caller's transaction.
--
-- p_results is an array of {request_id, lease_id, outcome, ...}, outcome one of COMPLETED, FAILED, CANCELLED, RETRY
-- (waits for retry_seconds), FALLBACK (goes on with the next usable model of its list, with attempts_more attempts; FAILED
-- where there is none) and RELEASED (given back unsent: no attempt spent). provider_fault says that the failure was the
-- provider's. p_lines is an array of ledger lines. A result whose lease is no longer held changes nothing and is missing
-- from the answer. p_epoch and p_expected: as of claim_requests.
CREATE FUNCTION finish_requests(p_results jsonb, p_lines jsonb, p_epoch integer DEFAULT NULL, p_expected timestamptz DEFAULT NULL)
RETURNS TABLE (request_id text, status "ModelRequestStatus")
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
  v_clock steady_clock%ROWTYPE;
  v_now timestamptz;
  v_wall timestamptz;
  v_ids text[] := ARRAY(SELECT x ->> 'request_id' FROM jsonb_array_elements(p_results) AS x);
  v_providers text[];
  v_has_streams boolean;
  v_has_trouble boolean;
  v_next jsonb;
  v_outcome record;
BEGIN
  SELECT array_agg(DISTINCT r.provider_id), bool_or(r.is_streamed) INTO v_providers, v_has_streams
    FROM model_requests r WHERE r.id = ANY (v_ids);
  IF v_providers IS NULL THEN
    RETURN;
  END IF;
  -- The limit states are locked before any request, in one order, as claim_requests does.
  SELECT max(t.clock), bool_or(t.consecutive_failures > 0 OR t.circuit_open_until IS NOT NULL) INTO v_now, v_has_trouble
    FROM (SELECT * FROM limit_states WHERE provider_id = ANY (v_providers) ORDER BY provider_id FOR UPDATE) t;
  SELECT * INTO v_clock FROM steady_clock;
  v_now := greatest(v_now, within_expectation(clock_timestamp() - v_clock.behind_microseconds * interval '1 microsecond',
                                              CASE WHEN v_clock.epoch = p_epoch THEN p_expected END));
  v_wall := v_now + v_clock.behind_microseconds * interval '1 microsecond';

  -- A success after none but successes changes nothing.
  IF v_has_trouble OR p_results @> '[{"provider_fault": true}]' THEN
    -- Of results whose leases are held; the finish below holds the same, since both hold the limit states.
    FOR v_outcome IN
      SELECT r.provider_id, count(*) FILTER (WHERE x.provider_fault) AS failures,
             bool_or(x.outcome = 'COMPLETED') AS has_success
        FROM jsonb_to_recordset(p_results) AS x(request_id text, lease_id text, outcome text, provider_fault boolean)
        JOIN model_requests r ON r.id = x.request_id AND r.lease_id = x.lease_id AND r.status = 'PROCESSING'
       GROUP BY r.provider_id
    LOOP
      PERFORM record_outcomes(v_outcome.provider_id, v_outcome.failures, v_outcome.has_success, v_now);
    END LOOP;
  END IF;
  IF p_results @> '[{"outcome": "FALLBACK"}]' THEN
    SELECT jsonb_object_agg(r.id, jsonb_build_object('model_id', n.model_id, 'provider_id', n.provider_id, 'model_ref', n.model_ref,
                                                     'rest', array_to_string(n.rest, ' '))),
           v_providers || array_agg(n.provider_id)
      INTO v_next, v_providers
      FROM jsonb_to_recordset(p_results) AS x(request_id text, outcome text)
      JOIN model_requests r ON r.id = x.request_id
      CROSS JOIN LATERAL next_fallback(r.fallback_model_ids, r.reserved_tokens, v_now, NULL) n
     WHERE x.outcome = 'FALLBACK';
  END IF;

  RETURN QUERY
  WITH held AS MATERIALIZED (
    SELECT r.id, r.provider_id, r.model_ref AS called_ref, r.attempt_count, r.worker_id, r.lease_started_at, r.start_sequence,
           r.workspace_id, greatest(v_wall, r.lease_started_at) AS ended_at,
           CASE WHEN x.outcome = 'FALLBACK' AND r.cancel_requested_at IS NULL THEN v_next -> r.id END AS next,
           CASE WHEN x.outcome NOT IN ('RETRY', 'RELEASED', 'FALLBACK') THEN x.outcome
                WHEN r.cancel_requested_at IS NOT NULL THEN 'CANCELLED'
                WHEN x.outcome = 'FALLBACK' AND (v_next -> r.id) IS NULL THEN 'FAILED'
                ELSE 'PENDING' END::"ModelRequestStatus" AS new_status,
           x.*
      FROM jsonb_to_recordset(p_results) AS x(
             request_id text, lease_id text, outcome text, retry_seconds double precision, attempts_more integer, settled_tokens integer,
             output jsonb, output_text text, input_tokens integer, output_tokens integer, cache_read_tokens integer,
             cache_write_tokens integer, reasoning_tokens integer, images integer, characters integer, seconds numeric,
             searches integer, usage_estimated boolean, cost_total numeric, currency text, error jsonb, first_chunk_seconds double precision,
             response_model text, provider_request_id text, finish_reason text, http_status integer)
      JOIN model_requests r ON r.id = x.request_id AND r.lease_id = x.lease_id AND r.status = 'PROCESSING'
     ORDER BY r.id FOR UPDATE OF r
  ), attempted AS (
    INSERT INTO request_attempts (request_id, number, lease_id, worker_id, status, model_ref, started_at, first_chunk_at, finished_at,
                                  response_model, provider_request_id, finish_reason, http_status, error)
    SELECT id, attempt_count, lease_id, worker_id,
           CASE outcome WHEN 'COMPLETED' THEN 'SUCCEEDED' WHEN 'RETRY' THEN 'FAILED' WHEN 'FALLBACK' THEN 'FAILED'
                        ELSE outcome END::"RequestAttemptStatus",
           called_ref, lease_started_at, lease_started_at + first_chunk_seconds * interval '1 second', ended_at, response_model,
           provider_request_id, finish_reason, http_status, error
      FROM held
  ), charged AS (
    INSERT INTO ledger_entries (workspace_id, request_id, lease_id, model_ref, unit, quantity, price_id, price_per_million,
                                amount, currency, is_estimated, charged_at)
    SELECT h.workspace_id, l.request_id, l.lease_id, h.called_ref, l.unit, l.quantity, l.price_id, l.price_per_million,
           l.amount, l.currency, l.is_estimated, v_wall
      FROM jsonb_to_recordset(p_lines) AS l(request_id text, lease_id text, unit "UsageUnit", quantity numeric, price_id text,
                                            price_per_million numeric, amount numeric, currency text, is_estimated boolean)
      JOIN held h ON h.request_id = l.request_id AND h.lease_id = l.lease_id
  ), settled AS (
    UPDATE provider_starts s SET settled_tokens = h.settled_tokens, ended_at = v_now
      FROM held h WHERE s.provider_id = h.provider_id AND s.sequence = h.start_sequence
    RETURNING s.provider_id, s.sequence, h.settled_tokens - s.reserved_tokens AS change
  ), released AS (
    UPDATE limit_states t
       SET clock = v_now, window_tokens = t.window_tokens + coalesce((
             SELECT sum(s.change) FROM settled s WHERE s.provider_id = t.provider_id AND s.sequence > t.floor_sequence), 0)
     WHERE t.provider_id IN (SELECT h.provider_id FROM held h)
  )
  UPDATE model_requests r
     SET status = h.new_status,
         output = h.output, output_text = h.output_text, input_tokens = h.input_tokens, output_tokens = h.output_tokens,
         cache_read_tokens = h.cache_read_tokens, cache_write_tokens = h.cache_write_tokens,
         reasoning_tokens = h.reasoning_tokens, images = h.images, characters = h.characters, seconds = h.seconds,
         searches = h.searches, usage_estimated = h.usage_estimated, cost_total = h.cost_total, currency = h.currency,
         error = CASE WHEN h.new_status = 'FAILED' THEN h.error END,
         model_id = coalesce(h.next ->> 'model_id', r.model_id), provider_id = coalesce(h.next ->> 'provider_id', r.provider_id),
         model_ref = coalesce(h.next ->> 'model_ref', r.model_ref),
         fallback_model_ids = CASE WHEN h.next IS NULL THEN r.fallback_model_ids ELSE string_to_array(h.next ->> 'rest', ' ') END,
         max_attempts = CASE WHEN h.next IS NULL THEN r.max_attempts ELSE r.attempt_count + coalesce(h.attempts_more, 1) END,
         attempt_count = r.attempt_count - CASE WHEN h.outcome = 'RELEASED' THEN 1 ELSE 0 END,
         available_at = CASE WHEN h.new_status = 'PENDING' THEN v_now + coalesce(h.retry_seconds, 0) * interval '1 second' ELSE r.available_at END,
         finished_at = CASE WHEN h.new_status <> 'PENDING' THEN greatest(h.ended_at, r.started_at) END,
         lease_id = NULL, lease_expires_at = NULL, lease_started_at = NULL, worker_id = NULL, start_sequence = NULL
    FROM held h WHERE r.id = h.id
  RETURNING r.id, r.status;

  IF v_has_streams THEN
    DELETE FROM request_chunks c USING model_requests r
     WHERE c.request_id = r.id AND r.id = ANY (v_ids) AND r.status <> 'PROCESSING';
  END IF;
  PERFORM announce_requests(v_ids);
  -- A request that went on to another provider waits there.
  PERFORM pg_notify('tollgate_work', p.id) FROM unnest(v_providers) AS p(id)
    WHERE EXISTS (SELECT FROM model_requests WHERE provider_id = p.id AND status = 'PENDING' AND owner_id IS NULL)
       OR EXISTS (SELECT FROM model_requests WHERE provider_id = p.id AND status = 'PENDING' AND owner_id IS NOT NULL);
END $$;

-- As before, but that no request ends before it began, though the server's clock was set back meanwhile.
CREATE OR REPLACE FUNCTION cancel_request(p_workspace_id text, p_request_id text) RETURNS "ModelRequestStatus" LANGUAGE plpgsql AS $$
DECLARE
  v_status "ModelRequestStatus";
  v_provider text;
BEGIN
  SELECT status, provider_id INTO v_status, v_provider FROM model_requests
   WHERE id = p_request_id AND workspace_id = p_workspace_id FOR UPDATE;
  IF v_status = 'PENDING' THEN
    UPDATE model_requests SET status = 'CANCELLED', finished_at = greatest(clock_timestamp(), started_at, created_at) WHERE id = p_request_id
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
