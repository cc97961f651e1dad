// Clients of `bittorrent-tracker` (the package whose path is the first argument) go through the life of a swarm at each tracker
// that follows. Prints `good ADDRESS` for each; the first thing that is not as it should be ends it with an error.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { register } from 'node:module'
import { pathToFileURL } from 'node:url'

const [packagePath, ...trackers] = process.argv.slice(2)
// WebRTC is loaded in any case, from a binary that is not made for every machine; nothing here needs it.
const names = ['RTCPeerConnection', 'RTCIceCandidate', 'RTCSessionDescription']
const nothing = ['default null', ...names.map(name => `const ${name} = null`)].map(what => `export ${what}`).join(';')
const resolve = `export const resolve = (name, context, next) => name === 'webrtc-polyfill'
  ? { url: ${JSON.stringify('data:text/javascript,' + nothing)}, shortCircuit: true } : next(name, context)`
register('data:text/javascript,' + encodeURIComponent(resolve))
const { default: Client } = await import(pathToFileURL(packagePath))

setTimeout(() => { console.error('no answer in 25 s'); process.exit(1) }, 25_000).unref()

function client (announce, infoHash, number, port) {
  const made = new Client({ infoHash, announce: [announce], port, peerId: Buffer.alloc(20, 48 + number), wrtc: false })
  made.on('error', fail)
  made.on('warning', fail)
  return made
}

function fail (error) {
  console.error(error)
  process.exit(1)
}

// Does `step` and waits for what the tracker answers, and for the peers that it tells.
async function answer (of, event, step) {
  const peers = []
  const peer = addr => peers.push(addr)
  of.on('peer', peer)
  const data = await new Promise(resolve => { of.once(event, resolve); step() })
  await new Promise(resolve => setImmediate(resolve)) // peers come after the update, in the same turn
  of.off('peer', peer)
  return { complete: data.complete, incomplete: data.incomplete, downloaded: data.downloaded, peers: peers.sort() }
}

async function life (announce) {
  // Of ten bytes in hex digits: its client takes a hash of HTTP that is no UTF-8 for another one.
  const [hash, other] = [1, 2].map(() => Buffer.from(randomBytes(10).toString('hex')).toString('hex'))
  const host = announce.includes('[::1]') ? '[::1]' : '127.0.0.1'
  const at = port => `${host}:${port}`
  const one = client(announce, hash, 1, 6881)
  const numbers = ({ complete, incomplete }) => [complete, incomplete]

  let told = await answer(one, 'update', () => one.start({ left: 100 }))
  assert.deepEqual([numbers(told), told.peers], [[0, 1], []])
  told = await answer(one, 'update', () => one.update({ left: 50 }))
  assert.deepEqual(numbers(told), [0, 1])
  told = await answer(one, 'update', () => one.complete({ left: 0 }))
  assert.deepEqual(numbers(told), [1, 0])
  told = await answer(one, 'scrape', () => one.scrape())
  assert.deepEqual([numbers(told), told.downloaded], [[1, 0], 1])

  const two = client(announce, hash, 2, 6882)
  told = await answer(two, 'update', () => two.start({ left: 100 }))
  assert.deepEqual([numbers(told), told.peers], [[1, 1], [at(6881)]])
  const three = client(announce, hash, 3, 6880)
  told = await answer(three, 'update', () => three.start({ left: 100 }))
  assert.deepEqual([numbers(told), told.peers], [[1, 2], [at(6881), at(6882)]])
  told = await answer(three, 'update', () => three.update({ left: 100, numwant: 1 }))
  assert.equal(told.peers.length, 1)
  // A seeder is told of those who download.
  told = await answer(one, 'update', () => one.update({ left: 0 }))
  assert.deepEqual(told.peers, [at(6880), at(6882)])

  // Its UDP takes several hashes as bytes only, and its HTTP as text only.
  const asked = [hash, other].map(text => announce.startsWith('udp') ? Buffer.from(text, 'hex') : text)
  const both = await new Promise((resolve, reject) => {
    Client.scrape({ infoHash: asked, announce }, (error, data) => error ? reject(error) : resolve(data))
  })
  assert.deepEqual([numbers(both[hash]), both[hash].downloaded], [[1, 2], 1])
  assert.deepEqual([numbers(both[other]), both[other].downloaded], [[0, 0], 0])

  told = await answer(two, 'update', () => two.stop())
  assert.deepEqual(numbers(told), [1, 1])
  told = await answer(three, 'update', () => three.stop())
  assert.deepEqual(numbers(told), [1, 0])
  // Destroyed in the same turn: the tracker hears of it even so.
  one.stop()
  await new Promise(resolve => one.destroy(resolve))
  await Promise.all([two, three].map(each => new Promise(resolve => each.destroy(resolve))))
  console.log('good', announce)
}

await Promise.all(trackers.map(life)).catch(fail)
process.exit(0)
