// KafkaJS. Started with the folder that holds node_modules and the brokers; commands in, answers out (../README.md).
'use strict'

const fs = require('node:fs')
const { createRequire } = require('node:module')
const path = require('node:path')
const readline = require('node:readline')

const [folder, brokers] = process.argv.slice(2)
const need = createRequire(path.join(path.resolve(folder), 'package.json'))
const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, logLevel } = need('kafkajs')

// KafkaJS brings gzip; the other codecs are given to it.
const snappy = need('snappyjs')
const lz4 = need('lz4-napi')
const XERIAL = Buffer.from([130, 83, 78, 65, 80, 80, 89, 0])
const blocks = (data) => {
  if (!data.subarray(0, 8).equals(XERIAL)) return Buffer.from(snappy.uncompress(data))
  const parts = []
  for (let at = 16; at < data.length; ) {
    const length = data.readInt32BE(at)
    parts.push(Buffer.from(snappy.uncompress(data.subarray(at + 4, at + 4 + length))))
    at += 4 + length
  }
  return Buffer.concat(parts)
}
CompressionCodecs[CompressionTypes.Snappy] = () => ({
  compress: async (encoder) => Buffer.from(snappy.compress(encoder.buffer)),
  decompress: async (data) => blocks(data),
})
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: (encoder) => lz4.compressFrame(encoder.buffer),
  decompress: (data) => lz4.decompressFrame(data),
})
const zstd = new Promise((done) => need('zstd-codec').ZstdCodec.run((codec) => done(new codec.Simple())))
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => Buffer.from((await zstd).compress(encoder.buffer)),
  decompress: async (data) => Buffer.from((await zstd).decompress(data)),
})

const COMPRESSIONS = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4,
  zstd: CompressionTypes.ZSTD,
}
const WAIT_MS = 20000

// How to come in where the broker asks who one is.
const { mechanism, username, password, ca } = JSON.parse(process.env.KAFKA_SECURITY || '{}')
const security = mechanism && { ssl: { ca: [fs.readFileSync(ca)] }, sasl: { mechanism: mechanism.toLowerCase(), username, password } }

const kafka = new Kafka({ brokers: [brokers], ...security, logLevel: logLevel.WARN, logCreator: () => ({ log }) => console.error(log.message, log) })
const say = (line) => process.stdout.write(JSON.stringify(line) + '\n')
const encode = (data) => (data === null || data === undefined ? null : data.toString('base64'))
const decode = (text) => (text === null ? null : Buffer.from(text, 'base64'))
const record = (partition, { offset, timestamp, key, value }) => ({
  partition,
  offset: Number(offset),
  time: Number(timestamp),
  key: encode(key),
  value: encode(value),
})
const messages = (records) =>
  records.map(({ key, value, partition, time }) => ({
    key: decode(key),
    value: decode(value),
    partition,
    timestamp: time === undefined ? undefined : String(time),
  }))

const withAdmin = async (work) => {
  const admin = kafka.admin()
  await admin.connect()
  try {
    return await work(admin)
  } finally {
    await admin.disconnect()
  }
}

const commands = {
  async produce({ topic, records, compression = 'none', idempotent = false }) {
    const producer = kafka.producer({ idempotent })
    await producer.connect()
    try {
      await producer.send({ topic, messages: messages(records), compression: COMPRESSIONS[compression], acks: -1 })
    } finally {
      await producer.disconnect()
    }
    return records.length
  },

  // KafkaJS reads in groups only: one of its own, moved to where reading begins.
  async read({ topic, count, time, committed = false }) {
    const start = time === undefined ? [] : await withAdmin((admin) => admin.fetchTopicOffsetsByTimestamp(topic, time))
    const group = `kafkajs-read-${process.pid}-${process.hrtime.bigint()}`
    const consumer = kafka.consumer({ groupId: group, readUncommitted: !committed })
    const found = []
    await consumer.connect()
    try {
      await consumer.subscribe({ topic, fromBeginning: true })
      await new Promise((done, fail) => {
        const limit = setTimeout(() => fail(new Error(`only ${found.length} of ${count} records came`)), WAIT_MS)
        consumer
          .run({
            autoCommit: false,
            eachMessage: async ({ partition, message }) => {
              const begin = start.find((each) => each.partition === partition)
              if (found.length < count && !(begin && Number(message.offset) < Number(begin.offset))) found.push(record(partition, message))
              if (found.length === count) done(clearTimeout(limit))
            },
          })
          .catch(fail)
        for (const { partition, offset } of start) consumer.seek({ topic, partition, offset })
      })
    } finally {
      await consumer.disconnect()
    }
    return found
  },

  async join({ topic, group, count = Infinity }) {
    const consumer = kafka.consumer({ groupId: group, sessionTimeout: 6000, heartbeatInterval: 500, maxWaitTimeInMs: 500 })
    consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => say({ assigned: payload.memberAssignment[topic] || [] }))
    consumer.on(consumer.events.REBALANCING, () => say({ assigned: [] }))
    await consumer.connect()
    await consumer.subscribe({ topic, fromBeginning: true })
    let seen = 0
    await new Promise((done, fail) => {
      consumer
        .run({
          autoCommit: false,
          eachMessage: async ({ partition, message }) => {
            if (seen === count) return
            say({ record: record(partition, message) })
            await consumer.commitOffsets([{ topic, partition, offset: String(Number(message.offset) + 1) }])
            seen += 1
            if (seen === count) done()
          },
        })
        .catch(fail)
    })
    await consumer.disconnect()
    return seen
  },

  async transact({ id, topic, records, end, group, offsets }) {
    const producer = kafka.producer({ transactionalId: id, idempotent: true, maxInFlightRequests: 1 })
    await producer.connect()
    try {
      const transaction = await producer.transaction()
      await transaction.send({ topic, messages: messages(records) })
      if (group !== undefined) {
        const partitions = Object.entries(offsets).map(([partition, offset]) => ({ partition: Number(partition), offset: String(offset) }))
        await transaction.sendOffsets({ consumerGroupId: group, topics: [{ topic, partitions }] })
      }
      await (end === 'commit' ? transaction.commit() : transaction.abort())
    } finally {
      await producer.disconnect()
    }
  },

  create: ({ topic, partitions, config }) =>
    withAdmin((admin) => {
      const configEntries = Object.entries(config).map(([name, value]) => ({ name, value }))
      return admin.createTopics({ topics: [{ topic, numPartitions: partitions, replicationFactor: 1, configEntries }] })
    }),

  describe: ({ topic }) =>
    withAdmin(async (admin) => {
      const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
      const { resources } = await admin.describeConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name: topic }] })
      const config = Object.fromEntries(resources[0].configEntries.map(({ configName, configValue }) => [configName, configValue]))
      return { partitions: topics[0].partitions.length, config }
    }),

  alter: ({ topic, config, partitions }) =>
    withAdmin(async (admin) => {
      const configEntries = Object.entries(config).map(([name, value]) => ({ name, value }))
      await admin.alterConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries }] })
      await admin.createPartitions({ topicPartitions: [{ topic, count: partitions }] })
    }),

  delete: ({ topic }) => withAdmin((admin) => admin.deleteTopics({ topics: [topic] })),

  topics: () => withAdmin((admin) => admin.listTopics()),

  groups: () => withAdmin(async (admin) => (await admin.listGroups()).groups.map(({ groupId }) => groupId)),

  group: ({ group }) =>
    withAdmin(async (admin) => {
      const { groups } = await admin.describeGroups([group])
      return { state: groups[0].state.toLowerCase(), members: groups[0].members.length }
    }),

  offsets: ({ group, topic }) =>
    withAdmin(async (admin) => {
      const [{ partitions }] = await admin.fetchOffsets({ groupId: group, topics: [topic] })
      return Object.fromEntries(partitions.filter(({ offset }) => offset !== '-1').map(({ partition, offset }) => [partition, Number(offset)]))
    }),
}

async function serve() {
  const can = ['bytes', 'read', 'time', 'group', 'topics', 'groups', 'idempotent', 'transactions', 'abort', 'offsets']
  say({ client: `KafkaJS ${need('kafkajs/package.json').version}`, can: [...Object.keys(COMPRESSIONS), ...can] })
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const command = JSON.parse(line)
    try {
      say({ ok: (await commands[command.do](command)) ?? null })
    } catch (error) {
      say({ error: `${error.name}: ${error.message}` })
    }
  }
}

serve()
